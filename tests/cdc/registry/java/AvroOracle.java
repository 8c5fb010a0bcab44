import java.io.BufferedReader;
import java.io.InputStreamReader;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.SchemaCompatibility.Incompatibility;
import org.apache.avro.SchemaCompatibility.SchemaCompatibilityResult;

/** Says what Avro's own library holds of pairs of schemas: lines "reader TAB writer" in, "true" or "false reasons" out. */
public class AvroOracle {
  public static void main(String[] args) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
    StringBuilder out = new StringBuilder();
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] pair = line.split("\t");
      try {
        Schema reader = new Schema.Parser().parse(pair[0]);
        Schema writer = new Schema.Parser().parse(pair[1]);
        SchemaCompatibilityResult result = SchemaCompatibility.checkReaderWriterCompatibility(reader, writer).getResult();
        out.append(result.getIncompatibilities().isEmpty());
        for (Incompatibility found : result.getIncompatibilities()) {
          out.append(' ').append(found.getType()).append('@').append(found.getLocation());
        }
      } catch (Exception error) {
        out.append("error ").append(error.getClass().getSimpleName()).append(": ").append(String.valueOf(error.getMessage()).replace('\n', ' '));
      }
      out.append('\n');
    }
    System.out.print(out);
  }
}

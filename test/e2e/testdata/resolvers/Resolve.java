import java.net.InetAddress;
import java.net.UnknownHostException;

class Resolve {
    public static void main(String[] names) {
        for (String name : names) {
            StringBuilder out = new StringBuilder(name);
            try {
                for (InetAddress a : InetAddress.getAllByName(name)) out.append(' ').append(a.getHostAddress());
            } catch (UnknownHostException e) {
                out.append(' ').append(e.getMessage().endsWith("Name or service not known") ? "none" : e.getMessage());
            }
            System.out.println(out);
        }
    }
}

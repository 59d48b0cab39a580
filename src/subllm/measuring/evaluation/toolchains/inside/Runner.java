import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.lang.reflect.InvocationTargetException;

/** Calls main of the class named and writes the secret from standard input if it returns. */
public class Runner {
    public static void main(String[] arguments) throws Throwable {
        byte[] secret = new byte[32];
        new FileInputStream(FileDescriptor.in).readNBytes(secret, 0, secret.length);
        FileOutputStream out = new FileOutputStream(FileDescriptor.out);
        try {
            Class.forName(arguments[0])
                    .getMethod("main", String[].class)
                    .invoke(null, (Object) new String[0]);
        } catch (InvocationTargetException wrapped) {
            throw wrapped.getCause();
        }
        System.out.flush();
        out.write(secret);
        Runtime.getRuntime().halt(0);
    }
}

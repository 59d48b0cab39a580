import java.io.*;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.*;
import javax.tools.*;

/**
 * A compiler that stays warm. Reads a file name and its text, answers with the classes or
 * with what is wrong, again and again. Integers are big-endian, strings and classes are
 * preceded by their length. Annotation processors are off: nothing of a program runs here.
 */
public class Compiler {
    static class Source extends SimpleJavaFileObject {
        final String text;

        Source(String name, String text) {
            super(URI.create("string:///" + name), Kind.SOURCE);
            this.text = text;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return text;
        }
    }

    static class Compiled extends SimpleJavaFileObject {
        final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

        Compiled(String name) {
            super(URI.create("mem:///" + name.replace('.', '/') + ".class"), Kind.CLASS);
        }

        @Override
        public OutputStream openOutputStream() {
            return bytes;
        }
    }

    static class Memory extends ForwardingJavaFileManager<JavaFileManager> {
        final Map<String, Compiled> classes = new LinkedHashMap<>();

        Memory(JavaFileManager manager) {
            super(manager);
        }

        @Override
        public JavaFileObject getJavaFileForOutput(
                Location location, String name, JavaFileObject.Kind kind, FileObject sibling) {
            Compiled result = new Compiled(name);
            classes.put(name, result);
            return result;
        }
    }

    public static void main(String[] arguments) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out));
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StandardJavaFileManager files =
                compiler.getStandardFileManager(null, Locale.ROOT, StandardCharsets.UTF_8);
        files.setLocation(StandardLocation.CLASS_PATH, List.of());
        List<String> options = List.of("-proc:none", "-nowarn", "-Xlint:none", "-implicit:none");
        while (true) {
            String name;
            try {
                name = string(in);
            } catch (EOFException end) {
                return;
            }
            Source source = new Source(name, string(in));
            Memory memory = new Memory(files);
            DiagnosticCollector<JavaFileObject> said = new DiagnosticCollector<>();
            StringWriter trouble = new StringWriter();
            boolean good = false;
            String error = "";
            try {
                List<Source> sources = List.of(source);
                good = compiler.getTask(trouble, memory, said, options, null, sources).call();
            } catch (Throwable thrown) {
                error = "the compiler failed: " + thrown;
            }
            if (!good && error.isEmpty()) {
                for (Diagnostic<?> each : said.getDiagnostics()) {
                    if (each.getKind() == Diagnostic.Kind.ERROR) {
                        error = name + ":" + each.getLineNumber() + ": " + each.getMessage(Locale.ROOT);
                        break;
                    }
                }
                if (error.isEmpty()) {
                    String text = trouble.toString();
                    error = "the compiler failed: " + text.substring(0, Math.min(500, text.length()));
                }
            }
            write(out, error.getBytes(StandardCharsets.UTF_8));
            out.writeInt(good ? memory.classes.size() : 0);
            if (good) {
                for (Map.Entry<String, Compiled> each : memory.classes.entrySet()) {
                    write(out, each.getKey().getBytes(StandardCharsets.UTF_8));
                    write(out, each.getValue().bytes.toByteArray());
                }
            }
            out.flush();
        }
    }

    static String string(DataInputStream in) throws IOException {
        byte[] bytes = new byte[in.readInt()];
        in.readFully(bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    static void write(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes.length);
        out.write(bytes);
    }
}

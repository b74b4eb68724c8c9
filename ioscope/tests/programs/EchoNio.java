// Echo server on a java.nio Selector.
//
// Usage: java EchoNio PORT REQUESTS
// Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

public final class EchoNio {
    public static void main(String[] args) throws IOException {
        long left = Long.parseLong(args[1]);
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        ByteBuffer buffer = ByteBuffer.allocateDirect(4096);
        System.out.println("ready");
        while (left > 0) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel connection = listener.accept();
                    connection.configureBlocking(false);
                    connection.register(selector, SelectionKey.OP_READ);
                    continue;
                }
                SocketChannel connection = (SocketChannel) key.channel();
                buffer.clear();
                if (connection.read(buffer) < 0) {
                    connection.close();
                    continue;
                }
                buffer.flip();
                for (int i = 0; i < buffer.limit(); i++) {
                    if (buffer.get(i) == '\n') {
                        left--;
                    }
                }
                while (buffer.hasRemaining()) {
                    connection.write(buffer);
                }
            }
            selector.selectedKeys().clear();
        }
    }
}

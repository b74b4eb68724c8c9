// Echo server on Netty 4, with one event-loop thread.
//
// Usage: java EchoNetty PORT REQUESTS
// Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.

import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;

public final class EchoNetty {
    // Only the one event-loop thread touches it.
    private static long left;

    public static void main(String[] args) throws InterruptedException {
        left = Long.parseLong(args[1]);
        EventLoopGroup group = new NioEventLoopGroup(1);
        new ServerBootstrap()
                .group(group)
                .channel(NioServerSocketChannel.class)
                .childHandler(new ChannelInitializer<SocketChannel>() {
                    @Override
                    protected void initChannel(SocketChannel channel) {
                        channel.pipeline().addLast(new Echo());
                    }
                })
                .bind("127.0.0.1", Integer.parseInt(args[0]))
                .sync();
        System.out.println("ready");
        group.terminationFuture().sync();
    }

    private static final class Echo extends ChannelInboundHandlerAdapter {
        @Override
        public void channelRead(ChannelHandlerContext context, Object message) {
            ByteBuf data = (ByteBuf) message;
            for (int i = data.readerIndex(); i < data.writerIndex(); i++) {
                if (data.getByte(i) == '\n') {
                    left--;
                }
            }
            boolean last = left <= 0;
            context.writeAndFlush(data).addListener((ChannelFutureListener) written -> {
                if (last) {
                    System.exit(0);
                }
            });
        }
    }
}

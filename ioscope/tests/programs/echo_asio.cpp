// Echo server on standalone Asio.
//
// Usage: echo_asio PORT REQUESTS
// Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.

#include <algorithm>
#include <array>
#include <asio.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>

using asio::ip::tcp;

static long left;

struct Connection : std::enable_shared_from_this<Connection> {
    explicit Connection(tcp::socket accepted) : socket(std::move(accepted)) {}

    void read() {
        socket.async_read_some(asio::buffer(data), [self = shared_from_this()](auto error, size_t size) {
            if (!error) {
                self->write(size);
            }
        });
    }

    void write(size_t size) {
        left -= std::count(data.begin(), data.begin() + size, '\n');
        asio::async_write(socket, asio::buffer(data, size), [self = shared_from_this()](auto error, size_t) {
            if (left <= 0) {
                std::exit(0);
            }
            if (!error) {
                self->read();
            }
        });
    }

    tcp::socket socket;
    std::array<char, 4096> data;
};

static void accept(tcp::acceptor &listener) {
    listener.async_accept([&listener](auto error, tcp::socket socket) {
        if (!error) {
            std::make_shared<Connection>(std::move(socket))->read();
        }
        accept(listener);
    });
}

int main(int, char **arguments) {
    left = std::atol(arguments[2]);
    asio::io_context context;
    tcp::acceptor listener(
        context, {asio::ip::address_v4::loopback(), static_cast<unsigned short>(std::atoi(arguments[1]))});
    accept(listener);
    std::puts("ready");
    std::fflush(stdout);
    context.run();
}

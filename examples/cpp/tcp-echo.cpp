// SPDX-License-Identifier: MIT OR Apache-2.0
//
// tcp-echo in C++17: sends every client what it sent, with owning types: nothing is freed or closed by hand.
//
//   tcp-echo --config tap.toml --address 0.0.0.0 --port 7 [--seconds N] [--count N]
//
// --count N stops after N connections have ended; SIGINT and SIGTERM stop it as well.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <demi/catnip.hpp>
#include <iostream>
#include <map>
#include <string>

namespace {

std::atomic<bool> stop_requested{false};

extern "C" void on_stop_signal(int) { stop_requested = true; }

struct Options {
    std::string address = "0.0.0.0";
    std::uint16_t port = 12345;
    std::chrono::seconds seconds{0};
    std::uint64_t count = 0;
};

Options parse(int argc, char **argv)
{
    Options options;
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string name = argv[i];
        std::string value = argv[i + 1];
        if (name == "--address")
            options.address = value;
        else if (name == "--port")
            options.port = static_cast<std::uint16_t>(std::stoul(value));
        else if (name == "--seconds")
            options.seconds = std::chrono::seconds(std::stoul(value));
        else if (name == "--count")
            options.count = std::stoull(value);
        else if (name != "--config") // --config is for the library
            throw std::runtime_error("unknown option " + name);
    }
    return options;
}

// Serves connections with one operation under way each: pop, then push of what came, then the next pop.
class EchoServer {
public:
    explicit EchoServer(const catnip::Address &local) : listener_(catnip::Queue::socket(local.family(), SOCK_STREAM))
    {
        listener_.bind(local);
        listener_.listen(128);
        listener_.accept().detach();
    }

    void on_result(catnip::Result &&result)
    {
        if (result.descriptor() == listener_.descriptor())
            on_accept(result);
        else if (result.opcode() == DEMI_OPC_POP && !result.data().empty())
            start(result.descriptor(), [&](catnip::Queue &queue) { return queue.push(result.data()); });
        else if (result.opcode() == DEMI_OPC_PUSH)
            start(result.descriptor(), [](catnip::Queue &queue) { return queue.pop(); });
        else
            end(result.descriptor());
    }

    std::uint64_t ended() const { return ended_; }

private:
    void on_accept(catnip::Result &result)
    {
        if (result.opcode() == DEMI_OPC_ACCEPT) {
            catnip::Queue queue = result.accepted();
            int qd = queue.descriptor();
            connections_.emplace(qd, std::move(queue));
            start(qd, [](catnip::Queue &accepted) { return accepted.pop(); });
        } else {
            std::cerr << "accept: " << result.error().message() << '\n';
        }
        listener_.accept().detach();
    }

    // Starts a connection's next operation; one that cannot start ends the connection.
    template <typename Operation> void start(int qd, Operation operation)
    {
        try {
            operation(connections_.at(qd)).detach();
        } catch (const catnip::Error &) {
            end(qd);
        }
    }

    void end(int qd)
    {
        if (connections_.erase(qd) != 0)
            ended_++;
    }

    catnip::Queue listener_;
    std::map<int, catnip::Queue> connections_;
    std::uint64_t ended_ = 0;
};

} // namespace

int main(int argc, char **argv)
try {
    using namespace std::chrono_literals;
    Options options = parse(argc, argv);
    std::signal(SIGINT, on_stop_signal);
    std::signal(SIGTERM, on_stop_signal);

    catnip::LibraryOs library_os(argc, argv);
    std::uint64_t ended = 0;
    {
        EchoServer server(catnip::Address(options.address, options.port));
        std::cout << "tcp-echo: listening" << std::endl;
        auto stop_at = std::chrono::steady_clock::now() + options.seconds;
        while (!stop_requested && (options.count == 0 || server.ended() < options.count)) {
            catnip::wait_next(10ms, [&](catnip::Result &&result) { server.on_result(std::move(result)); });
            if (options.seconds != 0s && std::chrono::steady_clock::now() >= stop_at)
                break;
        }
        ended = server.ended();
    }
    // The operations of what was closed just now end as cancelled, and closed connections send their rest.
    while (catnip::wait_next(100ms, [](catnip::Result &&) {}) != 0) {
    }
    std::cout << "tcp-echo: " << ended << " connections ended\n";
    return EXIT_SUCCESS;
} catch (const std::exception &error) {
    std::cerr << "tcp-echo: " << error.what() << '\n';
    return EXIT_FAILURE;
}

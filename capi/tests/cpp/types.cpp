// SPDX-License-Identifier: MIT OR Apache-2.0
// The owning C++ types over in-memory queues: what is dropped is given back, what fails throws.
#include <cstdio>
#include <cstdlib>
#include <demi/catnip.hpp>
#include <string>
#include <type_traits>

using namespace std::chrono_literals;

namespace {

int failures = 0;

void expect(bool condition, const char *what, int line)
{
    if (!condition) {
        std::fprintf(stderr, "types.cpp:%d: %s\n", line, what);
        failures++;
    }
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)

template <typename Call> int error_of(Call call)
{
    try {
        call();
    } catch (const catnip::Error &error) {
        return error.code().value();
    }
    return 0;
}

template <typename Type> constexpr bool move_only = std::is_nothrow_move_constructible_v<Type> &&
                                                    !std::is_copy_constructible_v<Type> &&
                                                    !std::is_copy_assignable_v<Type>;
static_assert(move_only<catnip::ScatterGather>);
static_assert(move_only<catnip::Token>);
static_assert(move_only<catnip::Queue>);
static_assert(move_only<catnip::Result>);

std::uint64_t metric(const char *name)
{
    std::size_t count = 0;
    std::uint64_t value = 0;
    catnip::check(demi_ext_metrics(&count), "demi_ext_metrics");
    catnip::check(demi_ext_metric(name, &value), name);
    return value;
}

std::string text(const catnip::ScatterGather &array)
{
    return std::string(reinterpret_cast<const char *>(array.data()), array.size());
}

void bytes_travel_through_a_queue()
{
    catnip::Queue queue = catnip::Queue::memory();
    queue.push(catnip::ScatterGather("hello", 5)).wait();
    catnip::Result result = queue.pop().wait();
    EXPECT(result.opcode() == DEMI_OPC_POP);
    EXPECT(!result.error());
    EXPECT(!result.peer());
    EXPECT(text(result.data()) == "hello");
    catnip::ScatterGather kept = std::move(result.data());
    kept.advance(1);
    kept.truncate(3);
    EXPECT(text(kept) == "ell");
    EXPECT(result.data().empty());
}

void what_goes_out_of_scope_is_given_back()
{
    std::uint64_t descriptors = metric("libos.descriptors_open");
    {
        catnip::Queue queue = catnip::Queue::memory();
        catnip::ScatterGather array(1000);
        catnip::ScatterGather moved = std::move(array);
        EXPECT(moved.size() == 1000);
        EXPECT(array.data() == nullptr);
        array = std::move(moved);
        catnip::Token unused = queue.push(array);      // completed, never waited for
        catnip::Token brought = queue.pop();           // completed with data, never waited for
        catnip::Token outstanding = queue.pop();       // not completed
        EXPECT(!outstanding.wait_for(0ns).has_value());
        outstanding = queue.pop();                     // the first one is cancelled
        EXPECT(metric("arena.live_buffers") == 1);
    }
    EXPECT(metric("libos.descriptors_open") == descriptors);
    EXPECT(metric("libos.operations_held") == 0);
    EXPECT(metric("arena.live_buffers") == 0);
}

void what_fails_throws_with_its_error_number()
{
    EXPECT(error_of([] { catnip::Queue(4711).pop(); }) == EBADF);
    EXPECT(error_of([] { catnip::Queue::memory().bind(catnip::Address("192.0.2.1", 7)); }) == ENOTSUP);
    EXPECT(error_of([] { catnip::ScatterGather(0); }) == ENOBUFS);
    EXPECT(error_of([] { catnip::Address("not.an.address", 7); }) == EINVAL);
    EXPECT(error_of([] { catnip::LibraryOs second; }) == EEXIST);
    EXPECT(error_of([] {
               catnip::Queue queue = catnip::Queue::memory();
               catnip::Token token = queue.pop();
               queue.close();
               token.wait();
           }) == ECANCELED);
}

void detached_operations_come_out_of_wait_next()
{
    catnip::Queue queue = catnip::Queue::memory();
    queue.pop().detach();
    queue.push(catnip::ScatterGather("x", 1)).detach();
    int pops = 0;
    int pushes = 0;
    while (catnip::wait_next(0ns, [&](catnip::Result &&result) {
        pops += result.opcode() == DEMI_OPC_POP && text(result.data()) == "x";
        pushes += result.opcode() == DEMI_OPC_PUSH;
    }) != 0) {
    }
    EXPECT(pops == 1);
    EXPECT(pushes == 1);

    // A handler that throws loses nothing.
    queue.pop().detach();
    queue.push(catnip::ScatterGather("y", 1)).detach();
    bool thrown = false;
    try {
        catnip::wait_next(0ns, [](catnip::Result &&) { throw std::string("stop"); });
    } catch (const std::string &) {
        thrown = true;
    }
    EXPECT(thrown);
    while (catnip::wait_next(0ns, [](catnip::Result &&) {}) != 0) {
    }
    EXPECT(metric("arena.live_buffers") == 0);
}

void an_unshared_array_has_bytes_of_its_own()
{
    catnip::Queue queue = catnip::Queue::memory();
    catnip::ScatterGather array("old", 3);
    queue.push(array).wait();
    array.unshare();
    std::memcpy(array.data(), "new", 3);
    EXPECT(text(queue.pop().wait().data()) == "old");
    EXPECT(text(array) == "new");
}

void a_part_of_an_array_is_pushed_by_its_address()
{
    catnip::Queue queue = catnip::Queue::memory();
    catnip::ScatterGather array("0123456789", 10);
    const char *part = reinterpret_cast<const char *>(array.data()) + 3;
    queue.push(part, 4).wait();
    catnip::Result result = queue.pop().wait();
    EXPECT(reinterpret_cast<const char *>(result.data().data()) == part);
    EXPECT(text(result.data()) == "3456");
    int error = 0;
    try {
        queue.push(&error, sizeof error).detach();
    } catch (const catnip::Error &refused) {
        error = refused.code().value();
    }
    EXPECT(error == EINVAL);
}

void addresses_know_family_port_and_text()
{
    catnip::Address v4("192.0.2.1", 80);
    catnip::Address v6("2001:db8::1", 443);
    EXPECT(v4.family() == AF_INET && v4.port() == 80 && v4.size() == sizeof(sockaddr_in));
    EXPECT(v6.family() == AF_INET6 && v6.port() == 443 && v6.size() == sizeof(sockaddr_in6));
    EXPECT(v4.text() == "192.0.2.1" && v6.text() == "2001:db8::1" && catnip::Address().text().empty());
    EXPECT(!catnip::Address());
}

} // namespace

int main(int argc, char **argv)
{
    {
        catnip::LibraryOs library_os(argc, argv);
        bytes_travel_through_a_queue();
        what_goes_out_of_scope_is_given_back();
        what_fails_throws_with_its_error_number();
        detached_operations_come_out_of_wait_next();
        an_unshared_array_has_bytes_of_its_own();
    a_part_of_an_array_is_pushed_by_its_address();
        addresses_know_family_port_and_text();
    }
    catnip::LibraryOs again;
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

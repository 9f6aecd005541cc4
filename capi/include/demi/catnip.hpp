// SPDX-License-Identifier: MIT OR Apache-2.0
/**
 * demi/catnip.hpp - owning C++17 types over the C interface.
 *
 * LibraryOs sets up the thread's library OS and takes it down; Queue owns a descriptor, ScatterGather owns
 * memory, Token owns an operation. All are move-only, belong to the thread that made them, and must be gone before the
 * thread's LibraryOs. What fails throws Error, a std::system_error whose code is the error number of errno.h.
 * Destructors do not throw.
 */
#ifndef DEMI_CATNIP_HPP
#define DEMI_CATNIP_HPP

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace catnip {

/** A call or an operation failed. */
class Error : public std::system_error {
public:
    Error(int number, const char *what) : std::system_error(number, std::generic_category(), what) {}
};

/** Throws Error unless number is 0. */
inline void check(int number, const char *what)
{
    if (number != 0)
        throw Error(number, what);
}

/** The library OS of this thread. */
class LibraryOs {
public:
    /** See demi_init(). The message of the Error says which setting is wrong. */
    explicit LibraryOs(int argc = 0, char *const *argv = nullptr, demi_callback_t callback = nullptr)
    {
        demi_args args = {};
        args.argc = argc;
        args.argv = argv;
        args.callback = callback;
        int number = demi_init(&args);
        if (number != 0)
            throw Error(number, *demi_ext_init_error() != '\0' ? demi_ext_init_error() : "demi_init");
    }
    ~LibraryOs() { demi_ext_fini(); }
    LibraryOs(const LibraryOs &) = delete;
    LibraryOs &operator=(const LibraryOs &) = delete;
};

/** An IPv4 or IPv6 address with a port. */
class Address {
public:
    /** No address. */
    Address() noexcept = default;

    /** From "192.0.2.1" or "2001:db8::1". Throws Error with EINVAL for anything else. */
    Address(const std::string &text, std::uint16_t port)
    {
        sockaddr_in v4 = {};
        sockaddr_in6 v6 = {};
        if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
            v4.sin_family = AF_INET;
            v4.sin_port = htons(port);
            std::memcpy(&storage_, &v4, len_ = sizeof v4);
        } else if (inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1) {
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(port);
            std::memcpy(&storage_, &v6, len_ = sizeof v6);
        } else {
            throw Error(EINVAL, "not an IP address");
        }
    }

    Address(const sockaddr_storage &storage, socklen_t len) noexcept : storage_(storage), len_(len) {}

    const sockaddr *data() const noexcept { return reinterpret_cast<const sockaddr *>(&storage_); }
    socklen_t size() const noexcept { return len_; }
    int family() const noexcept { return storage_.ss_family; }
    explicit operator bool() const noexcept { return len_ != 0; }

    /** The IP address as text, such as "192.0.2.1"; an empty string when there is none. */
    std::string text() const
    {
        char room[INET6_ADDRSTRLEN] = {};
        const char *first = reinterpret_cast<const char *>(&storage_);
        if (family() == AF_INET)
            inet_ntop(AF_INET, first + offsetof(sockaddr_in, sin_addr), room, sizeof room);
        else if (family() == AF_INET6)
            inet_ntop(AF_INET6, first + offsetof(sockaddr_in6, sin6_addr), room, sizeof room);
        return room;
    }

    std::uint16_t port() const noexcept
    {
        in_port_t port = 0; /* at the same place in both structures */
        static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port), "one place for the port");
        std::memcpy(&port, reinterpret_cast<const char *>(&storage_) + offsetof(sockaddr_in, sin_port), sizeof port);
        return ntohs(port);
    }

private:
    sockaddr_storage storage_ = {};
    socklen_t len_ = 0;
};

/** Owns the memory of a scatter-gather array. */
class ScatterGather {
public:
    /** No memory. */
    ScatterGather() noexcept : raw_{} {}

    /** size bytes with any contents. Throws Error with ENOBUFS. */
    explicit ScatterGather(std::size_t size) : raw_(demi_sgaalloc(size))
    {
        if (raw_.sga_numsegs == 0)
            throw Error(ENOBUFS, "demi_sgaalloc");
    }

    /** A copy of len bytes. */
    ScatterGather(const void *bytes, std::size_t len) : ScatterGather(len) { std::memcpy(data(), bytes, len); }

    /** Takes over an array of the C interface. */
    static ScatterGather adopt(const demi_sgarray_t &raw) noexcept
    {
        ScatterGather array;
        array.raw_ = raw;
        return array;
    }

    ScatterGather(ScatterGather &&other) noexcept : raw_(other.release()) {}
    ScatterGather &operator=(ScatterGather &&other) noexcept
    {
        if (this != &other) {
            reset();
            raw_ = other.release();
        }
        return *this;
    }
    ~ScatterGather() { reset(); }

    std::uint8_t *data() noexcept { return static_cast<std::uint8_t *>(raw_.sga_segs[0].sgaseg_buf); }
    const std::uint8_t *data() const noexcept { return static_cast<const std::uint8_t *>(raw_.sga_segs[0].sgaseg_buf); }
    std::size_t size() const noexcept { return raw_.sga_segs[0].sgaseg_len; }
    bool empty() const noexcept { return size() == 0; }
    std::uint8_t *begin() noexcept { return data(); }
    std::uint8_t *end() noexcept { return data() + size(); }
    const std::uint8_t *begin() const noexcept { return data(); }
    const std::uint8_t *end() const noexcept { return data() + size(); }

    /** Drops the first count bytes from view, all when there are fewer. */
    void advance(std::size_t count) noexcept
    {
        count = count < size() ? count : size();
        raw_.sga_segs[0].sgaseg_buf = data() + count;
        raw_.sga_segs[0].sgaseg_len -= static_cast<std::uint32_t>(count);
    }

    /** Drops all but the first count bytes from view. */
    void truncate(std::size_t count) noexcept
    {
        if (count < size())
            raw_.sga_segs[0].sgaseg_len = static_cast<std::uint32_t>(count);
    }

    /** Makes the bytes safe to write to after a push; see demi_ext_unshare(). */
    void unshare() { check(demi_ext_unshare(&raw_), "demi_ext_unshare"); }

    /** Gives the memory back. */
    void reset() noexcept
    {
        if (raw_.sga_buf != nullptr)
            demi_sgafree(&raw_);
        raw_ = {};
    }

    /** The array of the C interface, still owned by this object. */
    const demi_sgarray_t &raw() const noexcept { return raw_; }

    /** The array of the C interface, to be freed by the caller. */
    demi_sgarray_t release() noexcept
    {
        demi_sgarray_t raw = raw_;
        raw_ = {};
        return raw;
    }

private:
    demi_sgarray_t raw_;
};

class Queue;

/** What an operation ended with. */
class Result {
public:
    demi_opcode_t opcode() const noexcept { return opcode_; }
    int descriptor() const noexcept { return qd_; }
    demi_qtoken_t token() const noexcept { return token_; }
    /** The error, or one that is false. */
    std::error_code error() const noexcept { return {number_, std::generic_category()}; }
    /** With DEMI_OPC_POP: the bytes. Empty at the end of a stream. Move it out to keep it. */
    ScatterGather &data() noexcept { return data_; }
    /** The accepted peer, or the sender of a popped datagram. */
    const Address &peer() const noexcept { return peer_; }
    /** With DEMI_OPC_ACCEPT: the connection. Valid once. */
    Queue accepted();

    Result(Result &&other) noexcept
        : opcode_(other.opcode_), qd_(other.qd_), token_(other.token_), number_(other.number_),
          accepted_(std::exchange(other.accepted_, -1)), data_(std::move(other.data_)), peer_(other.peer_)
    {
    }
    Result &operator=(Result &&) = delete;
    ~Result()
    {
        if (accepted_ >= 0)
            demi_close(accepted_);
    }

    /** Takes over a wide result, which has at most one segment. */
    explicit Result(const demi_ext_qresult_t &raw) noexcept
        : opcode_(raw.qr_opcode), qd_(raw.qr_qd), token_(raw.qr_qt), number_(static_cast<int>(raw.qr_ret)),
          accepted_(raw.qr_accepted), data_(), peer_(raw.qr_addr, raw.qr_addrlen)
    {
        if (raw.qr_opcode == DEMI_OPC_POP) {
            demi_sgarray_t array = {};
            array.sga_buf = raw.qr_segs[0].seg_owner;
            array.sga_numsegs = 1;
            array.sga_segs[0].sgaseg_buf = raw.qr_segs[0].seg_buf;
            array.sga_segs[0].sgaseg_len = static_cast<std::uint32_t>(raw.qr_segs[0].seg_len);
            data_ = ScatterGather::adopt(array);
        }
    }

private:
    demi_opcode_t opcode_;
    int qd_;
    demi_qtoken_t token_;
    int number_;
    int accepted_;
    ScatterGather data_;
    Address peer_;
};

inline timespec to_timespec(std::chrono::nanoseconds timeout) noexcept
{
    auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
    timespec spec = {};
    spec.tv_sec = static_cast<time_t>(seconds.count());
    spec.tv_nsec = static_cast<long>((timeout - seconds).count());
    return spec;
}

/** Owns an outstanding operation. Dropping it cancels the operation and lets go of what it had received. */
class Token {
public:
    explicit Token(demi_qtoken_t raw) noexcept : raw_(raw) {}
    Token(Token &&other) noexcept : raw_(other.detach()) {}
    Token &operator=(Token &&other) noexcept
    {
        if (this != &other) {
            cancel();
            raw_ = other.detach();
        }
        return *this;
    }
    ~Token() { cancel(); }

    /** Waits until the operation has completed. Throws Error when it failed. */
    Result wait()
    {
        std::optional<Result> result = wait_until_done(nullptr);
        return std::move(*result);
    }

    /** Waits no longer than that; std::nullopt when the time is up and the operation is still under way. */
    std::optional<Result> wait_for(std::chrono::nanoseconds timeout)
    {
        timespec spec = to_timespec(timeout);
        return wait_until_done(&spec);
    }

    /** Leaves the operation to wait_next(): this object forgets it. */
    demi_qtoken_t detach() noexcept { return std::exchange(raw_, 0); }

private:
    std::optional<Result> wait_until_done(const timespec *timeout)
    {
        demi_ext_qresult_t raw = {};
        int number = demi_ext_wait(&raw, raw_, timeout);
        if (number == ETIMEDOUT && timeout != nullptr)
            return std::nullopt;
        check(number, "demi_ext_wait");
        raw_ = 0;
        if (raw.qr_opcode == DEMI_OPC_FAILED)
            throw Error(static_cast<int>(raw.qr_ret), "operation failed");
        return Result(raw);
    }

    void cancel() noexcept
    {
        if (raw_ == 0)
            return;
        demi_ext_qresult_t raw = {};
        demi_ext_cancel(raw_);
        if (demi_ext_wait(&raw, raw_, nullptr) == 0)
            Result drop(raw);
        raw_ = 0;
    }

    demi_qtoken_t raw_;
};

/** Owns a queue descriptor: a socket, a connection or an in-memory queue. */
class Queue {
public:
    /** Takes over a descriptor. */
    explicit Queue(int qd) noexcept : qd_(qd) {}
    Queue(Queue &&other) noexcept : qd_(other.release()) {}
    Queue &operator=(Queue &&other) noexcept
    {
        if (this != &other) {
            close();
            qd_ = other.release();
        }
        return *this;
    }
    ~Queue() { close(); }

    static Queue socket(int domain, int type)
    {
        int qd = -1;
        check(demi_socket(&qd, domain, type, 0), "demi_socket");
        return Queue(qd);
    }
    static Queue memory()
    {
        int qd = -1;
        check(demi_ext_queue(&qd), "demi_ext_queue");
        return Queue(qd);
    }

    void bind(const Address &local) { check(demi_bind(qd_, local.data(), local.size()), "demi_bind"); }
    void listen(int backlog) { check(demi_listen(qd_, backlog), "demi_listen"); }
    void shutdown(int how) { check(demi_ext_shutdown(qd_, how), "demi_ext_shutdown"); }

    Token accept()
    {
        demi_qtoken_t token = 0;
        check(demi_accept(&token, qd_), "demi_accept");
        return Token(token);
    }
    Token connect(const Address &remote)
    {
        demi_qtoken_t token = 0;
        check(demi_connect(&token, qd_, remote.data(), remote.size()), "demi_connect");
        return Token(token);
    }
    /** The array may go out of scope at once; for writing to it again see ScatterGather::unshare(). */
    Token push(const ScatterGather &array)
    {
        demi_qtoken_t token = 0;
        check(demi_push(&token, qd_, &array.raw()), "demi_push");
        return Token(token);
    }
    /**
     * Bytes anywhere in memory of the library that the program holds, such as a part of an array: sent from where they
     * are, and not to be written to while in_use() says so. Throws Error with EINVAL for other memory.
     */
    Token push(const void *in_region, std::size_t len)
    {
        const demi_ext_seg_t segment = {const_cast<void *>(in_region), len, DEMI_EXT_REGION};
        demi_qtoken_t token = 0;
        check(demi_ext_push(&token, qd_, &segment, 1), "demi_ext_push");
        return Token(token);
    }
    Token push_to(const ScatterGather &array, const Address &remote)
    {
        demi_qtoken_t token = 0;
        check(demi_pushto(&token, qd_, &array.raw(), remote.data(), remote.size()), "demi_pushto");
        return Token(token);
    }
    Token pop()
    {
        demi_qtoken_t token = 0;
        check(demi_pop(&token, qd_), "demi_pop");
        return Token(token);
    }

    template <typename Value> void set_option(int level, int name, const Value &value)
    {
        check(demi_setsockopt(qd_, level, name, &value, sizeof value), "demi_setsockopt");
    }
    template <typename Value> Value option(int level, int name) const
    {
        Value value = {};
        socklen_t len = sizeof value;
        check(demi_getsockopt(qd_, level, name, &value, &len), "demi_getsockopt");
        return value;
    }

    Address local_address() const { return address(demi_getsockname, "demi_getsockname"); }
    Address peer_address() const { return address(demi_getpeername, "demi_getpeername"); }

    int descriptor() const noexcept { return qd_; }
    int release() noexcept { return std::exchange(qd_, -1); }
    void close() noexcept
    {
        if (qd_ >= 0)
            demi_close(std::exchange(qd_, -1));
    }

private:
    template <typename Call> Address address(Call call, const char *what) const
    {
        sockaddr_storage storage = {};
        socklen_t len = sizeof storage;
        check(call(qd_, reinterpret_cast<sockaddr *>(&storage), &len), what);
        return Address(storage, len);
    }

    int qd_;
};

inline Queue Result::accepted() { return Queue(std::exchange(accepted_, -1)); }

/**
 * Waits until any detached operation has completed, or the time is up, and calls handle(Result &&) for each that
 * has, 16 at most. Returns how many.
 */
template <typename Handle> int wait_next(std::chrono::nanoseconds timeout, Handle &&handle)
{
    demi_ext_qresult_t raw[16];
    int count = 0;
    timespec spec = to_timespec(timeout);
    int number = demi_ext_wait_next_n(raw, 16, &count, &spec);
    if (number == ETIMEDOUT)
        return 0;
    check(number, "demi_ext_wait_next_n");
    int taken = 0;
    try {
        while (taken < count)
            handle(Result(raw[taken++]));
    } catch (...) {
        while (taken < count)
            Result drop(raw[taken++]);
        throw;
    }
    return count;
}

} // namespace catnip

#endif // DEMI_CATNIP_HPP

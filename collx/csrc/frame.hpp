// What goes over a data connection: frames, each a header of 32 bytes and exactly as many bytes as it says.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "region.hpp"

namespace collx {

enum class FrameKind : std::uint8_t {
    collective = 1,       // a message of the collective lane
    mail = 2,             // one of the other lane
    acknowledgement = 3,  // how many messages of both lanes its sender has consumed
    arrival = 4,          // the newest call that its sender has begun, and the last chains
};

struct Frame {
    static constexpr std::uint16_t kMagic = 0x7863;  // "cx"
    static constexpr std::uint8_t kVersion = 1;

    std::uint16_t magic = kMagic;
    std::uint8_t version = kVersion;
    FrameKind kind{};
    std::uint32_t communicator = 0;
    std::uint32_t epoch = 0;        // of the job
    std::uint32_t fingerprint = 0;  // of a message; in an arrival the chain of that call
    std::uint64_t sequence = 0;     // of a message its ticket, of an arrival its call; else 0
    std::uint64_t length = 0;       // of what follows
};
static_assert(sizeof(Frame) == 32 && std::endian::native == std::endian::little);

// What follows the header of an acknowledgement and of an arrival.
struct Consumed {
    std::uint64_t collective, mail;
};
using Chains = std::array<std::uint32_t, kHistory>;
static_assert(sizeof(Consumed) == 16 && sizeof(Chains) == 64);

// Bytes up to which what follows a header is kept beside it, and taken in at once.
inline constexpr std::size_t kSmall = 64;
static_assert(kInline <= kSmall && sizeof(Chains) <= kSmall);

}  // namespace collx

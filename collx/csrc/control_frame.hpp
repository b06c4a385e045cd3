// What goes over a control connection: frames whose length follows from their kind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "frame.hpp"
#include "region.hpp"

namespace collx {

// What a rank tells another. Most are words of its region, for the other's replica of that.
enum class Tells : std::uint8_t {
    beat = 1,   // that it is there
    gone,       // subject: a rank, value: Acknowledged::gone
    proposal,   // subject: Why; a text
    farewell,   // subject: State, value: how many frames of data it has sent on this communicator
    connect,    // it asks for a data connection
    connected,  // value: Header::connected
    regret,     // value: Header::regretted; a text
    left_out,   // subject: a rank, value: Acknowledged::left_out
    members,    // subject: an attempt, value: the word of that name
    outcome,    // the same
    query,      // what is it doing?
    record,     // one of its newest calls, before its
    answer,     // subject: 1 where it is in that communicator
};

// Hosts do not share a clock, so times are told in ns from now: those of the past are negative.

// A call as `Recorded`.
struct RecordWords {
    std::uint64_t sequence, chain, progress;
    std::int64_t started, ended;  // ended 0: as there
    std::uint64_t traits[Traits::kWords];
};

// What an owner's Flight says beside its records.
struct AnswerWords {
    std::uint64_t arrival, blocked;
    std::int64_t since, looked;
    Chains chains;
};

struct ControlHead {
    std::uint16_t magic = kMagic;
    std::uint8_t version = kVersion;
    Tells kind = Tells::beat;
    std::uint32_t communicator = 0;
    std::uint32_t subject = 0;
    std::uint32_t length = 0;  // of what follows: the kind's, exactly
    std::uint64_t value = 0;

    static constexpr std::uint16_t kMagic = 0xC011;
    static constexpr std::uint8_t kVersion = 1;
};
static_assert(sizeof(ControlHead) == 24);

// Bytes behind the head, or nothing for what is no kind.
[[nodiscard]] constexpr std::optional<std::uint32_t> body_length(Tells kind) {
    switch (kind) {
        case Tells::proposal:
        case Tells::regret:
            return kText;
        case Tells::record:
            return sizeof(RecordWords);
        case Tells::answer:
            return sizeof(AnswerWords);
        case Tells::beat:
        case Tells::gone:
        case Tells::farewell:
        case Tells::connect:
        case Tells::connected:
        case Tells::left_out:
        case Tells::members:
        case Tells::outcome:
        case Tells::query:
            return 0;
    }
    return {};
}

struct ControlFrame {
    ControlHead head;
    std::byte body[kText]{};

    template <typename Words>
    [[nodiscard]] Words words() const {
        static_assert(std::is_trivially_copyable_v<Words> && sizeof(Words) <= kText);
        Words copy;
        std::memcpy(&copy, body, sizeof copy);
        return copy;
    }
    // The text in the body, which may not end in a zero byte as it should.
    [[nodiscard]] std::string text() const {
        const auto* letters = reinterpret_cast<const char*>(body);
        return {letters, strnlen(letters, kText - 1)};
    }
};
static_assert(sizeof(RecordWords) <= kText && sizeof(AnswerWords) <= kText);

// Cuts a stream of bytes into frames.
class ControlFrames {
  public:
    // Calls `take` with each frame that is complete with these bytes, until it says that one makes no sense. Returns
    // what is wrong, or nothing.
    std::string feed(std::span<const std::byte> bytes, const std::function<bool(const ControlFrame&)>& take);

  private:
    std::vector<std::byte> begun_;  // of a frame that is not complete; shorter than one
};

}  // namespace collx

// Feeds what a peer may send, changed at random, to everything that reads it: data connections and control connections.
//   wire_fuzz CORPUS [COUNT [SEED]]     so many inputs made from the corpus's files; the same seed makes the same ones
// Built with -fsanitize=fuzzer and COLLX_LIBFUZZER defined, libFuzzer makes the inputs.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "control_frame.hpp"
#include "incoming.hpp"
#include "lane.hpp"

using namespace collx;

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::uint32_t kCommunicator = 0x01020304, kEpoch = 0x05060708;

void demand(bool so) {
    if (!so) std::abort();
}

// A rank's end of one data connection, whose engine takes some of what comes.
class End {
  public:
    End() : own_(layout_.heap_at), theirs_(layout_.heap_at) {}

    void feed(std::span<const std::uint8_t> input) {
        reset();
        const Stream stream{0, 1, kCommunicator, kEpoch};
        Outgoing out(stream, layout_, own_.data());
        send(out);
        auto in = std::make_unique<Incoming>(stream, layout_, own_.data(), theirs_.data(), out);
        std::vector<std::byte> place(kPlace);  // exactly as long as what lands there
        const std::uint32_t choice = input.empty() ? 0 : input[0];
        std::uint64_t taken = 0;
        for (std::size_t at = std::min<std::size_t>(input.size(), 1), turn = 0; at < input.size(); ++turn) {
            std::array<iovec, 2> parts;
            const int used = in->room(parts);
            const std::size_t bytes = std::min(input.size() - at, std::size_t{1} + (choice * (turn + 1) * 7) % 200);
            std::size_t put = 0;
            for (int part = 0; part < used; ++part) {
                const iovec& to = parts[static_cast<std::size_t>(part)];
                const std::size_t here = std::min(bytes - put, to.iov_len);
                std::memcpy(to.iov_base, input.data() + at + put, here);
                put += here;
            }
            demand(put > 0);
            at += put;
            if (in->took(put) != nullptr) return;
            if ((choice & 1) != 0) taken += engine();
            if ((choice & 4) != 0 && turn % 2 == 1) in->withdraw(), place = std::vector<std::byte>(kPlace);
            for (std::uint64_t next = 1; (choice & 2) != 0 && next < 4; ++next) in->land(taken + next, place.data(), kPlace, 0);
        }
    }

  private:
    static constexpr std::size_t kPlace = 100;

    void reset() {
        for (const Channel* channel : {&layout_.collective, &layout_.mail}) {
            Line* lines = Layout::lines(theirs_.data(), *channel, 0);
            for (std::uint32_t at = 0; at < channel->slots; ++at) lines[at].ticket = 0;
        }
        layout_.acknowledged(own_.data(), 1).collective = 0;
        layout_.acknowledged(own_.data(), 1).mail = 0;
        Layout::header(theirs_.data()).flight.arrival = 0;
        layout_.acknowledged(theirs_.data(), 0).collective = 0;
        layout_.acknowledged(theirs_.data(), 0).mail = 0;
        read_[0] = read_[1] = 0;
    }

    // Two messages of each lane, which the peer may acknowledge.
    void send(Outgoing& out) {
        for (const Channel* channel : {&layout_.collective, &layout_.mail}) {
            Line* lines = Layout::lines(own_.data(), *channel, 1);
            for (std::uint64_t ticket = 1; ticket <= 2; ++ticket) {
                lines[ticket - 1].length = 8;
                lines[ticket - 1].ticket = ticket;
            }
        }
        out.gather();
        Outgoing::Parts parts;
        std::size_t bytes = 0;
        const int used = out.parts(parts);
        for (int part = 0; part < used; ++part) bytes += parts[static_cast<std::size_t>(part)].iov_len;
        out.gave(bytes);
        demand(out.given(FrameKind::mail) == 2 && out.waiting() == 0);
    }

    // Reads one message of each lane; how many of the collective one.
    std::uint64_t engine() {
        std::uint64_t taken = 0;
        for (const bool mail : {false, true}) {
            const Channel& channel = mail ? layout_.mail : layout_.collective;
            Acknowledged& said = layout_.acknowledged(own_.data(), 1);
            const Line& line = Layout::lines(theirs_.data(), channel, 0)[read_[mail] & (channel.slots - 1)];
            if (line.ticket != read_[mail] + 1) continue;
            demand(line.length <= channel.bytes);
            if (line.length > kInline && line.offset != kLanded)
                demand(line.offset >= channel.payload_at && line.offset + line.length <= layout_.heap_at);
            (mail ? said.mail : said.collective) = ++read_[mail];
            taken += !mail;
        }
        return taken;
    }

    const Layout layout_{2};
    std::vector<std::byte> own_, theirs_;
    std::uint64_t read_[2] = {0, 0};
};

void feed(std::span<const std::uint8_t> input) {
    static End end;
    end.feed(input);
    ControlFrames frames;
    std::size_t count = 0;
    for (std::size_t at = std::min<std::size_t>(input.size(), 1); at < input.size();) {
        const std::size_t bytes = std::min(input.size() - at, std::size_t{1} + input[at] % 64);
        const auto* from = reinterpret_cast<const std::byte*>(input.data() + at);
        const std::string wrong = frames.feed({from, bytes}, [&](const ControlFrame& frame) {
            return frame.text().size() <= kText && ++count < 1000;
        });
        if (!wrong.empty()) return;
        at += bytes;
    }
}

// Some of the files, changed: bytes, numbers that matter, pieces left out or doubled.
Bytes mutated(std::mt19937_64& chance, const std::vector<Bytes>& corpus) {
    const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(chance() % std::max<std::size_t>(limit, 1)); };
    Bytes input = corpus[below(corpus.size())];
    if (below(4) == 0) {
        const Bytes& more = corpus[below(corpus.size())];
        input.insert(input.end(), more.begin() + std::min<std::ptrdiff_t>(1, std::ssize(more)), more.end());
    }
    for (std::size_t changes = below(6); changes > 0 && !input.empty(); --changes) {
        const std::size_t at = below(input.size()), length = std::min(input.size() - at, 1 + below(8));
        const auto here = input.begin() + static_cast<std::ptrdiff_t>(at), end = here + static_cast<std::ptrdiff_t>(length);
        switch (below(5)) {
            case 0: *here = static_cast<std::uint8_t>(chance()); break;
            case 1: *here ^= static_cast<std::uint8_t>(1u << below(8)); break;
            case 2: std::fill(here, end, static_cast<std::uint8_t>(below(2) * 255)); break;
            case 3: input.erase(here, end); break;
            default: {
                const Bytes piece(here, end);
                input.insert(here, piece.begin(), piece.end());
            }
        }
    }
    return input;
}

}  // namespace

#ifdef COLLX_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    feed({data, size});
    return 0;
}
#else
int main(int argc, char** argv) {
    if (argc < 2) return std::fprintf(stderr, "usage: wire_fuzz CORPUS [COUNT [SEED]]\n"), 2;
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
    std::ranges::sort(paths);
    std::vector<Bytes> corpus;
    for (const auto& path : paths) {
        std::ifstream file(path, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    if (corpus.empty()) return std::fprintf(stderr, "no files in %s\n", argv[1]), 2;
    const unsigned long count = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 100000;
    const unsigned long seed = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : std::random_device()();
    std::printf("%lu inputs, seed %lu\n", count, seed);
    std::fflush(stdout);
    std::mt19937_64 chance(seed);
    for (const Bytes& input : corpus) feed(input);
    for (unsigned long made = 0; made < count; ++made) feed(mutated(chance, corpus));
    return 0;
}
#endif

#include "whereabouts.hpp"

#include <cstdio>
#include <optional>
#include <tuple>

namespace collx {

namespace {

constexpr int kMostNamed = 8;

// Whether the process whose thread holds a header's life was stopped by a signal.
bool stopped(const Header& header) {
    char path[40];
    std::snprintf(path, sizeof path, "/proc/%u/stat", header.life.load(std::memory_order_relaxed) & 0x3fffffffu);
    std::FILE* file = std::fopen(path, "re");
    if (file == nullptr) return false;
    char state = 0;
    const int found = std::fscanf(file, "%*d (%*[^)]) %c", &state);
    std::fclose(file);
    return found == 1 && (state == 'T' || state == 't');
}

// Why nothing is to be expected of a rank, whatever it was doing; empty where that is not so.
std::string halted(const Communicator& here, std::size_t peer) {
    if (here.far != nullptr && here.far->silent(peer)) return "does not answer (stopped, or its host cut off?)";
    return stopped(*here.headers[peer]) ? "is stopped" : "";
}

std::string doing(const Communicator& here, std::size_t peer) {
    const Flight& flight = here.headers[peer]->flight;
    const int other = waiting(flight).peer;
    const auto call = recorded(flight, newest(flight));
    std::string text = halted(here, peer);
    const char* before = text.empty() ? "" : ", ";
    if (!call) return text.empty() ? "has not called any collective yet" : text;
    const std::string name = std::string(call->traits.collective) + " #" + std::to_string(call->sequence);
    if (call->progress == Progress::under_way) {
        text += text.empty() ? "is in " + name : " in " + name;
        if (*before == '\0' && other >= 0) text += ", waiting for rank " + std::to_string(other);
    } else if (*before == '\0' && other >= 0) {
        text += "has finished " + name + " and waits for rank " + std::to_string(other) + " in a send or receive";
    } else {
        text += std::string(before) + "has finished " + name + " and called nothing since";
    }
    return text;
}

}  // namespace

std::string laggards(const Communicator& here, int waited_for) {
    const auto& [rank, headers] = std::tie(here.rank, here.headers);
    if (here.far != nullptr) here.far->ask();
    const Flight& own = headers[rank]->flight;
    const auto call = recorded(own, newest(own));
    const bool inside = call && call->progress != Progress::done;  // its own time may be up already
    std::vector<std::size_t> late;
    for (std::size_t peer = 0; peer < headers.size(); ++peer) {
        if (peer == rank) continue;
        if (!halted(here, peer).empty() || (inside && newest(headers[peer]->flight) < call->sequence)) late.push_back(peer);
    }
    std::vector<bool> seen(headers.size());
    int last = waited_for;
    while (late.empty() && last >= 0 && !seen[static_cast<std::size_t>(last)]) {
        seen[static_cast<std::size_t>(last)] = true;
        const int next = waiting(headers[static_cast<std::size_t>(last)]->flight).peer;
        if (next < 0) late.push_back(static_cast<std::size_t>(last));
        last = next;
    }
    if (late.empty() && waited_for >= 0) late.push_back(static_cast<std::size_t>(waited_for));  // they wait in a ring
    std::string told;
    int named = 0;
    for (const std::size_t peer : late) {
        if (named++ == kMostNamed) return told + ", and " + std::to_string(late.size() - kMostNamed) + " more are late";
        const std::string other = halted(here, peer).empty() ? elsewhere(here, peer) : "";
        told += (told.empty() ? "rank " : ", rank ") + std::to_string(peer) + " " +
                (other.empty() ? doing(here, peer) : other);
    }
    return told;
}

}  // namespace collx

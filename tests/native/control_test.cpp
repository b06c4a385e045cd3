// What processes tell each other over control connections.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "processes.hpp"

using namespace collx;

namespace {

// Two processes, joined and in communicator 5.
struct Two {
    Process zero{0, 2}, one{1, 2};
    Two() {
        join(zero, one);
        zero.enter(5);
        one.enter(5);
    }
};

bool asked(const Process& process) {
    pollfd wants{process.control->fileno(), POLLIN, 0};
    return poll(&wants, 1, 0) == 1;
}

bool tells_words() {
    Two two;
    two.zero.far->tell(Tells::gone, 1, 3);
    two.zero.far->tell(Tells::proposal, static_cast<std::uint32_t>(Why::revoked), 0, "because");
    const Header& seen = two.one.of(0);
    return eventually([&] { return seen.proposed.load(std::memory_order_acquire) != 0; }) &&
           seen.proposal.why == Why::revoked && seen.proposal.text == std::string("because") &&
           two.one.layout.acknowledged(two.one.regions[0], 1).gone.load() == 3 && two.zero.control->lost(1).empty();
}

bool keeps_what_comes_early() {
    Process zero(0, 2), one(1, 2);
    join(zero, one);
    zero.enter(5);
    zero.far->tell(Tells::connected, 0, 4);
    zero.far->tell_state(State::leaving);
    zero.far->ask();  // answered, so all before it has been read
    one.enter(5);
    return one.of(0).connected.load() == 4 && one.wires[0].state.load() == State::leaving && one.wires[0].frames.load() == 17;
}

// A process that ends without a farewell has died, in every communicator, also in one that is entered later.
bool tells_deaths() {
    Two two;
    two.zero.control->close();
    if (!eventually([&] { return died(two.one.of(0)); })) return false;
    two.one.far.reset();
    two.one.of(0).life = 0;
    two.one.enter(6);
    return died(two.one.of(0)) && !two.one.control->lost(0).empty();
}

bool farewells_are_no_deaths() {
    for (int turn = 0; turn < 50; ++turn) {
        Two two;
        for (int question = 0; question < 5; ++question) two.one.far->wonder(Clock::now() + std::chrono::seconds(question));
        two.zero.far->tell_state(State::departed);
        two.zero.far->leave();
        two.zero.control->close();
        if (!eventually([&] { return !two.one.control->lost(0).empty(); })) return false;
        if (died(two.one.of(0)) || !two.one.far->departed(0)) return false;
    }
    return true;
}

bool answers_questions() {
    Two two;
    Flight& own = two.zero.of(0).flight;
    std::vector<Flight*> flights{&own, &two.zero.of(1).flight};
    Recorder recorder(0, flights, {false, true});
    Traits traits;
    std::strcpy(traits.collective, "all_reduce");
    for (std::uint64_t sequence = 1; sequence <= 70; ++sequence) {
        traits.fingerprint = sequence;
        recorder.begin(traits, sequence, Clock::now());
        if (sequence < 70) recorder.end(true, false);
    }
    const std::int64_t before = Clock::now().time_since_epoch().count();
    recorder.block(70, 1, Recorder::kStuck);
    const Flight& seen = two.one.of(0).flight;
    two.one.far->ask();
    const auto first = recorded(seen, 7), last = recorded(seen, 70);
    bool right = first && last && first->progress == Progress::done && last->progress == Progress::under_way &&
                 last->traits.collective == std::string("all_reduce") && last->started > before - 1'000'000'000 &&
                 two.one.wires[0].arrival.load() >> 32 == 70 && two.one.wires[0].chain.load() == own.chains[1].load() &&
                 seen.since.load() >= before && seen.blocked.load() == own.blocked.load() && two.one.far->asked(0) >= before;
    recorder.end(true, false);
    two.one.far->ask();
    const auto ended = recorded(seen, 70);
    right &= ended && ended->progress == Progress::done && ended->ended >= ended->started && !two.one.far->silent(0);
    return right;
}

// A process that is stopped answers nothing, and is not dead.
bool notices_silence() {
    Process one(1, 2);
    const Pair pair;
    one.control->add(0, pair.one);
    one.enter(5);
    const auto before = Clock::now();
    one.far->ask();
    const bool waited = Clock::now() - before >= std::chrono::milliseconds(250);
    const bool right = waited && one.far->silent(0) && !died(one.of(0)) && one.control->lost(0).empty();
    close(pair.other);
    return right && eventually([&] { return died(one.of(0)); }) && !one.far->silent(0);
}

bool refuses_nonsense() {
    ControlHead right, wrong;
    right.kind = Tells::gone;
    right.communicator = 5;
    std::vector<ControlHead> all;
    const auto add = [&](const std::function<void(ControlHead&)>& spoil) { wrong = right, spoil(wrong), all.push_back(wrong); };
    add([](auto& head) { head.magic = 0x4547; });
    add([](auto& head) { head.version = 2; });
    add([](auto& head) { head.kind = static_cast<Tells>(200); });
    add([](auto& head) { head.length = 0xffffffff; });
    add([](auto& head) { head.subject = 2; });
    for (const ControlHead& head : all) {
        Process one(1, 2);
        const Pair pair;
        one.control->add(0, pair.one);
        one.enter(5);
        for (const ControlHead& sent : {right, head})
            for (std::size_t at = 0; at < sizeof sent; ++at)  // a byte at a time
                if (send(pair.other, reinterpret_cast<const char*>(&sent) + at, 1, MSG_NOSIGNAL) != 1) return false;
        if (!eventually([&] { return died(one.of(0)); })) return false;
        if (!one.control->lost(0).starts_with("is lost: it ")) return false;
        close(pair.other);
    }
    return true;
}

// The lower rank connects, once, whoever wants it first.
bool passes_connections() {
    Two two;
    two.one.far->want(0);
    if (!eventually([&] { return asked(two.zero); })) return false;
    two.zero.far->want(1);
    const auto wants = two.zero.control->wants();
    if (wants.size() != 1 || wants[0] != std::pair{5u, 1u} || asked(two.zero) || asked(two.one)) return false;
    const Pair pair, later, late;
    two.zero.control->attach(5, 1, pair.one);
    two.one.control->attach(6, 0, pair.other);
    two.zero.control->attach(5, 1, late.one);  // a second one
    char byte = 0;
    if (recv(late.other, &byte, 1, 0) != 0 || two.zero.wires[1].fd.load() != pair.one) return false;
    two.one.far->leave();
    two.one.enter(6);
    if (two.one.wires[0].fd.load() != pair.other) return false;
    two.one.control->attach(5, 0, later.one);  // left: nobody wants it any more
    close(late.other);
    const bool closed = recv(later.other, &byte, 1, 0) == 0;
    close(later.other);
    two.one.control->fail(6, 0, "no route to host");
    return closed && two.one.far->trouble() == "it cannot connect to rank 0: no route to host";
}

// A communicator's number is kept until everybody has left it, or is lost, and no longer.
bool forgets() {
    Two left, lost;
    for (Process* process : {&left.one, &left.zero}) {
        if (!process->control->holds(5)) return false;
        process->far->tell_state(State::departed);
        process->far->leave();
        if (process == &left.one && !process->control->holds(5)) return false;
    }
    if (!eventually([&] { return !left.zero.control->holds(5) && !left.one.control->holds(5); })) return false;
    lost.one.far->leave();
    if (!lost.one.control->holds(5)) return false;
    lost.zero.control->close();
    return eventually([&] { return !lost.one.control->holds(5); });
}

bool rings_for_data() {
    Two two;
    const Pair pair;
    Header& own = two.zero.of(0);
    own.asleep = 1;
    two.zero.far->arm(pair.one, EPOLLIN);
    const std::uint32_t before = own.bell.load();
    if (send(pair.other, "x", 1, 0) != 1) return false;
    const bool rang = eventually([&] { return own.bell.load() == before + 1; });
    if (send(pair.other, "x", 1, 0) != 1) return false;
    two.one.far->ask();  // the thread has been through its events since
    const bool once = own.bell.load() == before + 1;
    two.zero.far->arm(pair.one, EPOLLIN);
    const bool again = eventually([&] { return own.bell.load() == before + 2; });
    two.zero.far->disarm(pair.one);
    close(pair.one), close(pair.other);
    return rang && once && again;
}

// A child of a process that ends does not keep its connections open.
bool forks_are_not_heard() {
    Two two;
    const pid_t child = fork();
    if (child == 0) {
        two.zero.control->close();
        pause();
        _exit(0);
    }
    two.zero.control->close();
    const bool right = eventually([&] { return died(two.one.of(0)); });
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return right;
}

}  // namespace

int main() {
    int failed = 0;
    const auto test = [&](const char* name, bool (*passes)()) {
        if (passes()) return;
        std::printf("FAILED %s\n", name);
        ++failed;
    };
    test("tells_words", tells_words);
    test("keeps_what_comes_early", keeps_what_comes_early);
    test("tells_deaths", tells_deaths);
    test("farewells_are_no_deaths", farewells_are_no_deaths);
    test("answers_questions", answers_questions);
    test("notices_silence", notices_silence);
    test("refuses_nonsense", refuses_nonsense);
    test("passes_connections", passes_connections);
    test("forgets", forgets);
    test("rings_for_data", rings_for_data);
    test("forks_are_not_heard", forks_are_not_heard);
    return failed == 0 ? 0 : 1;
}

/* Rounds: how ranks on several hosts decide something alike, where no word is seen by all, while some of them die.

Mirrors: collx/csrc/rounds.cpp (left_out, outcome), shrink.cpp (give_up), far.cpp (tell, take_word, lost).
Claimed: all who survive and do not give up hold the same in the end; nobody hangs.
Bound: 3 ranks, each of which holds something else at first; two of them die, at any step, also between telling one and
  telling another; one of them gives up at any moment before its turn, where not more than one dies.
Memory: what a rank tells another arrives at any later time, in order; the end of a connection after all that came by it.
Not here: ranks of one host, which see each other's words at once; connections that end though both ranks live.

Faults that must be found:
  BROKEN_ADOPT   who has seen what a rank holds keeps its own
  BROKEN_WAIT    a rank that has not told is passed over, though it lives
  BROKEN_TURN    a rank tells what it held at first, before it has seen those of lower rank
  BROKEN_REGRET  that a rank has given up is taken for what it holds */

#define RANKS 3
#define GAVE_UP 9 /* told instead of what it holds */

bool dead[3];
byte deaths;
byte told[9];  /* rank * 3 + peer: on its way to the peer, or there */
byte seen[9];  /* and there */
bool lost[9];  /* the peer has seen the end of the connection */
byte result[3];
bool raised[3];  /* it has given up */
bool given_up;

inline tell(rank, value) {
  told[rank * 3 + (rank + 1) % 3] = value;
  told[rank * 3 + (rank + 2) % 3] = value;
  seen[rank * 3 + rank] = value
}

inline arrive(rank, peer) {
  told[rank * 3 + peer] != seen[rank * 3 + peer] && !dead[peer] -> seen[rank * 3 + peer] = told[rank * 3 + peer]
}

inline end(rank, peer) {
  dead[rank] && !dead[peer] && !lost[rank * 3 + peer] && told[rank * 3 + peer] == seen[rank * 3 + peer] -> lost[rank * 3 + peer] = true
}

#ifdef BROKEN_REGRET
#define told_there(rank, peer) (seen[rank * 3 + peer] != 0)
#else
#define told_there(rank, peer) (seen[rank * 3 + peer] != 0 && seen[rank * 3 + peer] != GAVE_UP)
#endif

proctype member(byte rank) {
  byte round, held = rank + 1;
  {
#ifdef BROKEN_TURN
  tell(rank, held);
#endif
  do
  :: round == RANKS -> result[rank] = held; break
  :: round == rank ->
     if
     :: seen[rank * 3 + rank] == 0 -> tell(rank, held)
     :: else -> held = seen[rank * 3 + rank]
     fi;
     round++
  :: round < RANKS && round != rank ->
     do
     :: atomic { told_there(round, rank) ->
#ifndef BROKEN_ADOPT
        held = seen[round * 3 + rank];
#endif
        break }
     :: atomic { !told_there(round, rank) && (lost[round * 3 + rank] || seen[round * 3 + rank] == GAVE_UP) -> break }
#ifdef BROKEN_WAIT
     :: seen[round * 3 + rank] == 0 -> break
#endif
     :: atomic { !given_up && deaths < 2 && seen[rank * 3 + rank] == 0 -> given_up = true; raised[rank] = true };
        tell(rank, GAVE_UP);
        goto over
     od;
     round++
  od;
over:
  atomic { round = 0; held = 0 }
  } unless { atomic { dead[rank] -> round = 0; held = 0 } }
}

proctype network() {
  do
  :: atomic { arrive(0, 1) }
  :: atomic { arrive(0, 2) }
  :: atomic { arrive(1, 0) }
  :: atomic { arrive(1, 2) }
  :: atomic { arrive(2, 0) }
  :: atomic { arrive(2, 1) }
  :: atomic { end(0, 1) }
  :: atomic { end(0, 2) }
  :: atomic { end(1, 0) }
  :: atomic { end(1, 2) }
  :: atomic { end(2, 0) }
  :: atomic { end(2, 1) }
  :: atomic { _nr_pr == 2 -> break } /* all others have ended */
  od
}

proctype death() {
  do
  :: deaths < 2 && !(given_up && deaths == 1) ->
     if
     :: atomic { !dead[0] -> dead[0] = true; deaths++ }
     :: atomic { !dead[1] -> dead[1] = true; deaths++ }
     :: atomic { !dead[2] -> dead[2] = true; deaths++ }
     fi
  :: break
  od
}

init {
  byte rank, agreed;
  atomic {
    run network();
    run member(0);
    run member(1);
    run member(2);
    run death()
  }
  _nr_pr == 1; /* all have ended */
  for (rank : 0 .. 2) {
    if
    :: !dead[rank] && !raised[rank] ->
       assert(result[rank] && (agreed == 0 || result[rank] == agreed));
       agreed = result[rank]
    :: else
    fi
  }
}

/* Arrival: all ranks make the same calls in the same order, or all of them raise.

Mirrors: collx/csrc/record.hpp (Recorder::begin, agreement), record.cpp (compare, differing), collective.cpp
  (as_expected, end), driving.cpp (compare_calls in the slow path of waiting).
Claimed: where one rank makes another call than the others, every rank raises in that call or in its next, whichever
  ranks run ahead and whichever come late; nobody takes a message of another call; nobody hangs. Where all make the
  same calls nobody raises, however far a root runs ahead.
Bound: 3 ranks, 3 calls; every sequence of broadcast from rank 0, broadcast from rank 2, gather to rank 0 and chain
  0 -> 1 -> 2 in which the third is like the first; in the first or second call one rank,
  any of them, makes any other of these, or the same with another dtype. 2 slots to a lane.
Memory: sequentially consistent. A chain is the whole history, so hashes do not collide.
Not here: death, and how all come to raise once one does, which is verdict.pml. Calls in which ranks agree on no
  counts, after which an arrival must be one call newer.

Faults that must be found:
  BROKEN_CHAIN       messages carry what this call is, and nothing of those before
  BROKEN_SLOW        a rank that waits does not compare calls
  BROKEN_END         a call ends without a look at the ranks that it did not hear
  BROKEN_WAIT        a call ends though a rank that it did not hear is two calls behind
  BROKEN_NEIGHBOURS  only the ranks before and after are looked at */

#define CALLS 3
#define SLOTS 2
#define KINDS 4

byte agreed[CALLS + 1]; /* the calls that all ranks should make */
byte culprit = 3, when, instead; /* the rank that makes another, in which call, and which */
byte arrival[3];        /* the newest call of a rank, and the chain of its calls until each */
short chains[12];
#define chain_of(rank, call) chains[(rank) * 4 + (call)]
bool verdict;
byte raised[3];         /* in which call */
chan lane[9] = [SLOTS] of {short};
#define to(peer) lane[rank * 3 + peer]
#define from(peer) lane[peer * 3 + rank]

/* Whether a peer's calls are known to differ: in the newest call that both have come to. */
#define both(peer) (arrival[peer] <= call -> arrival[peer] : call)
#define differs(peer) (chain_of(peer, both(peer)) != chain_of(rank, both(peer)))
#define until_before(peer) (arrival[peer] + 1 >= call && chain_of(peer, call - 1) == chain_of(rank, call - 1))
#define any_differs (differs(0) || differs(1) || differs(2))

#ifdef BROKEN_CHAIN
#define stamp kind
#else
#define stamp chain_of(rank, call)
#endif

/* Whether a wait can end early. */
#ifdef BROKEN_SLOW
#define stuck verdict
#else
#define stuck (verdict || any_differs)
#endif

inline or_raise() {
  if
  :: verdict
#ifndef BROKEN_SLOW
  :: !verdict && any_differs -> verdict = true
#endif
  fi;
  raised[rank] = call;
  goto over
}

inline send(peer) {
  if
  :: nfull(to(peer)) -> to(peer)!stamp
  :: full(to(peer)) && stuck -> or_raise()
  fi
}

inline recv(peer) {
  if
  :: nempty(from(peer)) ->
     from(peer)?message;
     if
     :: message != stamp -> verdict = true; raised[rank] = call; goto over
     :: else -> assert(chain_of(peer, call) == chain_of(rank, call)) /* else its payload is of another call */
     fi;
     heard = heard | (1 << peer)
  :: empty(from(peer)) && stuck -> or_raise()
  fi
}

#ifdef BROKEN_NEIGHBOURS
#define looked_at(peer) (peer == rank + 1 || peer + 1 == rank)
#else
#define looked_at(peer) (peer != rank)
#endif

/* At the end of a call: a rank that was not heard in it agrees until the call before at least. */
inline compare(peer) {
  if
  :: looked_at(peer) && !(heard & (1 << peer)) ->
#ifndef BROKEN_WAIT
     if
     :: arrival[peer] + 1 >= call
     :: arrival[peer] + 1 < call && stuck -> or_raise()
     fi;
#endif
     if
     :: differs(peer) -> verdict = true; raised[rank] = call; goto over
     :: until_before(peer) /* also where they differ now: a rank known until then is not looked at again */
     fi
  :: else
  fi
}

proctype member(byte rank) {
  byte call, kind, heard;
  short message;
  do
  :: call == CALLS -> break
  :: else ->
     if
     :: verdict -> raised[rank] = call + 1; goto over
     :: else
     fi;
     atomic { /* nobody sees a call before its arrival word */
       call++;
       heard = 0;
      message = 0;
       kind = (rank == culprit && call == when -> instead : agreed[call]);
       chain_of(rank, call) = chain_of(rank, call - 1) * 8 + kind + 1;
       arrival[rank] = call
     }
     if
     :: kind % KINDS == 0 && rank == 0 -> send(1); send(2)
     :: kind % KINDS == 0 && rank != 0 -> recv(0)
     :: kind % KINDS == 1 && rank == 2 -> send(0); send(1)
     :: kind % KINDS == 1 && rank != 2 -> recv(2)
     :: kind % KINDS == 2 && rank == 0 -> recv(1); recv(2)
     :: kind % KINDS == 2 && rank != 0 -> send(0)
     :: kind % KINDS == 3 && rank == 0 -> send(1)
     :: kind % KINDS == 3 && rank == 1 -> recv(0); send(2)
     :: kind % KINDS == 3 && rank == 2 -> recv(1); heard = 7 /* of rank 0 by way of rank 1 */
     fi;
#ifndef BROKEN_END
     compare(0);
     compare(1);
     compare(2)
#endif
  od;
over:
  atomic { call = 0; kind = 0; heard = 0; message = 0 }
}

init {
  byte rank;
  atomic {
    select(instead : 0 .. KINDS - 1);
    agreed[1] = instead;
    agreed[3] = instead;
    select(instead : 0 .. KINDS - 1);
    agreed[2] = instead;
    if
    :: instead = 0
    :: select(culprit : 0 .. 2);
       select(when : 1 .. 2);
       if /* another call, or the same with another dtype */
       :: instead = (agreed[when] + 1) % KINDS
       :: instead = (agreed[when] + 2) % KINDS
       :: instead = (agreed[when] + 3) % KINDS
       :: instead = agreed[when] + KINDS
       fi
    fi;
    run member(0);
    run member(1);
    run member(2)
  }
  _nr_pr == 1; /* all have ended */
  for (rank : 0 .. 2) {
    assert(culprit == 3 -> raised[rank] == 0 : raised[rank] > 0 && raised[rank] <= when + 1)
  }
}

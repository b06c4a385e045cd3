/* Shrinking: the survivors of a communicator agree on who goes on, also where more ranks die meanwhile.

Mirrors: collx/csrc/shrink.cpp (members, outcome, unite, give_up), verdict.cpp (count, counted), collx/shrink.py
  (agree).
Claimed: all survivors return from the same attempt with the same members, themselves among them, or all raise; there
  are no more attempts than ranks; nobody hangs.
Bound: 3 ranks; any two of them die, at any step, or none, or one; one of them gives up (its deadline passes) at any
  moment of waiting, where not more than one dies. The kernel marks a death at any later time.
Memory: sequentially consistent; every word has one writer or is decided by one compare-and-swap.
Not here: mailboxes that fill up, a death between two parcels of one rank; sleeping and
  ringing, which is in lane.pml and verdict.pml. A rank that has closed the communicator counts as dead.

Faults that must be found:
  BROKEN_MEMBERS    each goes on with those that it sees alive, without the vote
  BROKEN_OUTCOME    a rank that has connected to all returns, without waiting for an outcome
  BROKEN_SWAP       the outcome is a store, not a compare-and-swap
  BROKEN_REGRET     a rank that gives up raises, whatever the outcome */

#define RANKS 3
#define UNDECIDED 0
#define UNITED 1
#define FAILED 2
#define GAVE_UP 3

bool dead[3];
bool known[3];
byte deaths;
byte gone[9];      /* rank * 3 + peer: 0, or 1 + the vote in which the rank first counted the peer */
byte connected[3]; /* 1 + the attempt for which a rank is ready */
byte winner[RANKS];  /* by attempt: 1 + whose members won */
byte outcome[RANKS];
byte parcels[9];   /* attempt * 3 + receiver: a bit for each sender; kept in the mailbox until fetched */
byte result[3];    /* 1 + attempt * 8 + members, or RAISED */
#define RAISED 255
bool given_up;

#define absent(rank) (members & (1 << rank) && connected[rank] < attempt + 1)
#define lost(rank) (known[rank] && absent(rank))
#define anyone_lost (lost(0) || lost(1) || lost(2))
#define all_connected (!absent(0) && !absent(1) && !absent(2))

inline decide(word, proposed) {
#ifdef BROKEN_SWAP
  word = proposed
#else
  atomic {
    if
    :: word == 0 -> word = proposed
    :: else
    fi
  }
#endif
}

inline count(rank, peer) {
  if
  :: known[peer] && gone[rank * 3 + peer] == 0 -> gone[rank * 3 + peer] = attempt + 2
  :: else
  fi
}

inline look_who(rank, peer) {
  if
  :: gone[(rank) * 3 + peer] == 0 || gone[(rank) * 3 + peer] > attempt + 2 -> members = members | (1 << peer)
  :: else
  fi
}

#ifdef BROKEN_MEMBERS
#define proposer rank
#else
#define proposer (winner[attempt] - 1)
#endif

inline send(peer) {
  if
  :: members & (1 << peer) -> parcels[attempt * 3 + peer] = parcels[attempt * 3 + peer] | (1 << rank)
  :: else
  fi
}

/* Ends a wait: the deadline passes. What it raises for depends on what has been decided. */
inline give_up(rank) {
  given_up = true;
#ifdef BROKEN_REGRET
  decide(outcome[attempt], GAVE_UP);
  result[rank] = RAISED
#else
  do
  :: decide(outcome[attempt], GAVE_UP);
     if
     :: outcome[attempt] == FAILED -> attempt++ /* the others are on their way to that one */
     :: outcome[attempt] == UNITED -> result[rank] = 1 + attempt * 8 + members; break
     :: else -> result[rank] = RAISED; break
     fi
  od
#endif
}

proctype member(byte rank) {
  byte attempt, members;
  {
  do
  :: result[rank] -> break
  :: else ->
     assert(attempt < RANKS);
     atomic {
       count(rank, 0);
       count(rank, 1);
       count(rank, 2)
     }
     atomic { /* what the winner counted for this vote does not change any more */
       if
       :: winner[attempt] == 0 -> winner[attempt] = rank + 1
       :: else
       fi;
       members = 0;
       look_who(proposer, 0);
       look_who(proposer, 1);
       look_who(proposer, 2);
       assert(members & (1 << rank))
     }
     /* connect: parcels to all, which the mailboxes of others keep */
     atomic {
       send((rank + 1) % 3);
       send((rank + 2) % 3)
     }
     do
     :: ((parcels[attempt * 3 + rank] | (1 << rank)) & members) == members -> connected[rank] = attempt + 1; break
     :: outcome[attempt] == UNDECIDED && anyone_lost -> decide(outcome[attempt], FAILED)
     :: outcome[attempt] != UNDECIDED -> break
     :: !given_up && deaths < 2 -> give_up(rank); break
     od;
#ifdef BROKEN_OUTCOME
     if
     :: connected[rank] == attempt + 1 -> result[rank] = 1 + attempt * 8 + members
     :: else
     fi;
#endif
     do
     :: result[rank] -> break
     :: !result[rank] && outcome[attempt] == UNDECIDED && all_connected -> decide(outcome[attempt], UNITED)
     :: !result[rank] && outcome[attempt] == UNDECIDED && anyone_lost -> decide(outcome[attempt], FAILED)
     :: !result[rank] && outcome[attempt] == UNITED -> result[rank] = 1 + attempt * 8 + members
     :: !result[rank] && outcome[attempt] == GAVE_UP -> result[rank] = RAISED
     :: !result[rank] && outcome[attempt] == FAILED -> attempt++; break
     :: !result[rank] && outcome[attempt] == UNDECIDED && !given_up && deaths < 2 -> give_up(rank)
     od
  od;
  atomic { attempt = 0; members = 0 }
  } unless { atomic { dead[rank] -> attempt = 0; members = 0 } }
}

proctype death() {
  byte rank;
  do
  :: deaths < 2 && !(given_up && deaths == 1) ->
     if
     :: !dead[0] -> rank = 0
     :: !dead[1] -> rank = 1
     :: !dead[2] -> rank = 2
     fi;
     atomic { dead[rank] = true; deaths++ }
     atomic { known[rank] = true; rank = 0 }
  :: break
  od
}

init {
  byte rank, agreed;
  atomic {
    run member(0);
    run member(1);
    run member(2);
    run death()
  }
  _nr_pr == 1; /* all have ended */
  for (rank : 0 .. 2) {
    if
    :: !dead[rank] ->
       assert(result[rank] && (agreed == 0 || result[rank] == agreed));
       agreed = result[rank]
    :: else
    fi
  }
}

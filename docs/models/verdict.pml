/* The verdict: what ends a communicator is decided by one compare-and-swap, and is the same for every rank.

Mirrors: collx/csrc/verdict.cpp (propose, propose_failed, count, look), wait.cpp (check, turn),
  endpoint.cpp (a call looks at the verdict before it begins; the mutex `writing_`).
Claimed: whatever of mismatch, giving up, revoking and death comes together, every survivor that raises raises the
  same: the same kind and the same failed ranks; nobody hangs; nobody reads half a proposal; and without a death no
  rank needs the nap that bounds a sleep.
Bound: 3 ranks, 2 calls in which everybody hears everybody; one of them dies, at any step; one of them gives up
  in the first call, or revokes after it, or rank 0 revokes from a second thread at any moment.
Memory: sequentially consistent. Dekker's pattern between sleeping and ringing is in lane.pml, with store buffers.
Not here: departures (a rank that closes counts as one that died, by its own word), texts of proposals.

Faults that must be found:
  BROKEN_SWAP     a look and a store instead of one compare-and-swap
  BROKEN_ORDER    put to the vote before the proposal is written
  BROKEN_REWRITE  a proposal may be written again after its vote (no look under the mutex)
  BROKEN_RING     whoever proposed wakes nobody
  BROKEN_OWN      a rank raises what it found itself instead of the verdict */

#define CALLS 2
#define NONE 0
#define FAILED 1
#define GAVE_UP 2
#define REVOKED 3

bool dead[3];    /* stopped */
bool known[3];   /* marked by the kernel, at some later time */
byte arrived[3]; /* the call that a rank has come to: a message to everybody */
byte word;       /* in rank 0's region: 1 + the winner */
byte why[3];     /* proposals, by rank */
byte failed[3];  /* the dead that it counted for the verdict, a bit for each */
bool writing;    /* rank 0's mutex */
byte raised[3];  /* what it raised: kind * 8 + failed ranks */
bool napping[3];
byte deaths;
bool wilful = true; /* somebody may still give up or revoke */
#define all_arrived(call) (arrived[0] >= call && arrived[1] >= call && arrived[2] >= call)
#define dead_seen (known[0] | known[1] << 1 | known[2] << 2)
#define any_known (known[0] || known[1] || known[2])

inline wake_all() {
#ifndef BROKEN_RING
  d_step {
    napping[0] = false;
    napping[1] = false;
    napping[2] = false
  }
#else
  skip
#endif
}

inline vote(rank) {
#ifdef BROKEN_SWAP
  if
  :: word == 0 -> word = rank + 1
  :: else
  fi
#else
  atomic {
    if
    :: word == 0 -> word = rank + 1
    :: else
    fi
  }
#endif
}

#ifdef BROKEN_REWRITE
#define may_write true
#else
#define may_write (word == 0)
#endif

inline propose(rank, what) {
  atomic { /* takes the mutex, and looks */
    rank != 0 || !writing -> writing = (rank == 0 || writing);
    mine = may_write;
    if
    :: mine && what == FAILED -> failed[rank] = failed[rank] | dead_seen
    :: else
    fi
  }
#ifdef BROKEN_ORDER
  if
  :: mine -> vote(rank)
  :: else
  fi;
#endif
  if
  :: mine -> why[rank] = what; vote(rank)
  :: else
  fi;
  atomic {
    mine = false;
    writing = (rank != 0 && writing);
    wake_all()
  }
}

/* What a rank raises for a verdict; it makes no more calls. */
#define sentence(winner) (why[winner] * 8 + (why[winner] == FAILED -> failed[winner] : 0))
#ifdef BROKEN_OWN
#define raise(rank) raised[rank] = (why[rank] != NONE -> sentence(rank) : sentence(word - 1))
#else
#define raise(rank) raised[rank] = sentence(word - 1)
#endif

proctype member(byte rank) {
  byte call;
  bool drowsy, mine;
  {
  do
  :: call == CALLS || raised[rank] -> break
  :: else ->
     if
     :: atomic { word != 0 -> raise(rank) }
     :: else ->
        atomic { call++; arrived[rank] = call }
        wake_all(); /* rings whoever it sent to */
        do
        :: all_arrived(call) -> break
        :: else -> /* one turn of waiting, and what it looks at */
           if /* giving up stands for a deadline, a mismatch and an exception as well */
           :: atomic { word != 0 -> raise(rank) }; break
           :: word == 0 && any_known -> propose(rank, FAILED)
           :: atomic { wilful && call == 1 -> wilful = false }; propose(rank, GAVE_UP)
           :: atomic { word == 0 && !drowsy -> drowsy = true; napping[rank] = true } /* says so, and looks once more */
           :: word == 0 && drowsy ->
              if
              :: !napping[rank]
              :: timeout -> /* the nap is over, and the next look finds what nobody rang for */
                 assert(deaths > 0 && (word != 0 || any_known || all_arrived(call)))
              fi;
              drowsy = false
           fi
        od;
        atomic { drowsy = false; napping[rank] = false }
        if
        :: atomic { wilful && call == 1 && !raised[rank] -> wilful = false }; propose(rank, REVOKED)
        :: true
        fi
     fi
  od;
  atomic { call = 0; napping[rank] = false }
  } unless { atomic { dead[rank] -> call = 0; drowsy = false; mine = false; napping[rank] = false } }
}

/* Another thread of rank 0, which may revoke at any time. */
proctype revoker() {
  bool mine;
  {
  if
  :: atomic { wilful -> wilful = false }; propose(0, REVOKED)
  :: true
  fi
  } unless { dead[0] }
}

proctype death() {
  byte rank;
  if
  :: rank = 0
  :: rank = 1
  :: rank = 2
  :: goto done
  fi;
  dead[rank] = true;
  deaths++;
  known[rank] = true;
done:
  skip
}

init {
  byte rank, verdict;
  atomic {
    run member(0);
    run member(1);
    run member(2);
    run revoker();
    run death()
  }
  _nr_pr == 1; /* all have ended */
  for (rank : 0 .. 2) {
    if
    :: raised[rank] ->
       assert(verdict == 0 || raised[rank] == verdict);
       verdict = raised[rank];
       assert(verdict / 8 != NONE);
       assert(verdict / 8 != FAILED || verdict % 8 == (dead[0] | dead[1] << 1 | dead[2] << 2))
    :: else -> assert(dead[rank] || all_arrived(CALLS))
    fi
  }
}

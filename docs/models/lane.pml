/* Lanes and the doorbell: one rank sends to two others through shared memory, and everybody sleeps while waiting.

Mirrors: collx/csrc/lane.hpp (Writer, Reader), wait.hpp and wait.cpp (Waiter::turn, ring, before_ringing),
  task.hpp (ring_touched), collective.cpp (publish, ready). The names are theirs.
Claimed: messages arrive in order and unharmed, also where two readers share one payload slot; no slot is written
  while somebody may still read it; no wake-up is lost, so that nobody needs the nap that bounds a sleep.
Bound: 3 ranks, 3 messages to either reader or both (every one of the 27 patterns), 2 slots to a lane.
Memory: total store order, as on x86: stores leave a buffer of each rank in their order, at any later time, and
  loads pass them. Acquire and release are free there; the full fences are what this model is about.
Simpler: rank 2 spins, and its stores are seen at once.
Not here: a rank's spinning before it sleeps, which is more looks and changes nothing; death, see verdict.pml.

Faults that must be found:
  BROKEN_RINGER   no fence between publishing and looking whether the other sleeps
  BROKEN_SLEEPER  no fence between saying that one sleeps and looking once more
  BROKEN_LOOK     no look between saying so and sleeping
  BROKEN_BELL     the bell's value is taken after that look instead of before
  BROKEN_TICKET   a message's number is written before its payload
  BROKEN_SHARED   the other reader of a shared payload slot is not waited for */

#define SLOTS 2
#define MESSAGES 3

/* Where things lie in memory. Lane 0 goes to rank 1, lane 1 to rank 2; the sender is rank 0. */
#define TICKET(lane, slot) ((lane) * 2 + (slot))
#define OFFSET(lane, slot) (4 + (lane) * 2 + (slot))
#define PAYLOAD(lane, slot) (8 + (lane) * 2 + (slot))
#define ACKNOWLEDGED(lane) (12 + (lane))
#define ASLEEP(rank) (14 + (rank))
byte memory[17];
byte bell[3];    /* changed by atomic additions only, which no buffer holds back */
bool napping[3]; /* inside the kernel's futex wait */
byte targets[MESSAGES + 1]; /* of each message, from 1: 1 = lane 0, 2 = lane 1, 3 = both */

chan buffer0 = [8] of {byte, byte};
chan buffer1 = [3] of {byte, byte};

proctype drain(chan buffer) {
  byte where, value;
end:
  do
  :: atomic { buffer?where, value -> memory[where] = value; where = 0; value = 0 }
  od
}

inline fence(buffer) { empty(buffer) }

inline ring(rank) {
  bell[rank]++;
  napping[rank] = false
}

inline ring_if_asleep(buffer, rank) {
  if
  :: memory[ASLEEP(rank)] -> fence(buffer); ring(rank) /* an atomic addition is a fence as well */
  :: else
  fi
}

/* One turn of waiting after a look that found nothing; the caller looks again after every turn. */
inline turn(buffer, rank) {
  if
  :: !drowsy ->
     atomic {
#ifndef BROKEN_BELL
     seen_bell = bell[rank];
#endif
     drowsy = true;
     buffer!ASLEEP(rank), 1
     }
#ifndef BROKEN_SLEEPER
     fence(buffer)
#endif
#ifdef BROKEN_LOOK
     ; goto_sleep(rank)
#endif
  :: drowsy ->
#ifdef BROKEN_BELL
     seen_bell = bell[rank];
#endif
     goto_sleep(rank)
  fi
}

inline goto_sleep(rank) {
  napping[rank] = (bell[rank] == seen_bell);
  !napping[rank];
#ifndef BROKEN_BELL
  seen_bell = bell[rank]
#endif
}

inline progressed(buffer, rank) {
  if
  :: drowsy -> drowsy = false; buffer!ASLEEP(rank), 0
  :: else
  fi
}

/* Whether the ticket-th message of a lane has been consumed, or there was none. */
#define consumed(lane, ticket) (seen[lane] >= (ticket))
#define aimed(lane) (targets[message] & (1 << (lane)))
#define room(lane) (!aimed(lane) || seen[lane] + SLOTS > sent[lane])
#define home (1 - (targets[message] & 1)) /* the lane whose slot holds the payload */
#define index(lane) (sent[lane] % SLOTS)
#ifdef BROKEN_SHARED
#define slot_free true
#else
#define slot_free (home == 1 || consumed(1, shared[index(0)]))
#endif

inline publish(lane) {
  buffer0!OFFSET(lane, index(lane)), PAYLOAD(home, slot);
  buffer0!TICKET(lane, index(lane)), sent[lane] + 1;
  sent[lane]++
}

proctype sender() {
  byte message = 1, slot;
  byte sent[2], seen[2];
  byte shared[SLOTS]; /* by slot of lane 0: the message of lane 1 that lies in it too */
  bool drowsy;
  byte seen_bell;
  do
  :: message > MESSAGES -> break
  :: else ->
     do
     :: room(0) && room(1) && slot_free -> break
     :: else ->
        turn(buffer0, 0);
        seen[0] = memory[ACKNOWLEDGED(0)];
        seen[1] = memory[ACKNOWLEDGED(1)]
     od;
     atomic { /* into the own buffer, which empties one by one */
     progressed(buffer0, 0);
     slot = index(home);
#ifdef BROKEN_TICKET
     if
     :: aimed(0) -> publish(0); sent[0]--
     :: else
     fi;
#endif
     buffer0!PAYLOAD(home, slot), message;
     if
     :: targets[message] == 3 -> shared[slot] = sent[1] + 1
     :: home == 0 && targets[message] != 3 -> shared[slot] = 0
     :: else
     fi;
     if
     :: aimed(0) -> publish(0)
     :: else
     fi;
     if
     :: aimed(1) -> publish(1)
     :: else
     fi
     }
#ifndef BROKEN_RINGER
     fence(buffer0);
#endif
     if
     :: aimed(0) -> ring_if_asleep(buffer0, 1)
     :: else
     fi;
     message++
  od
}

proctype reader() { /* rank 1 */
  byte message = 1, received, at;
  bool drowsy;
  byte seen_bell;
  do
  :: message > MESSAGES -> break
  :: message <= MESSAGES && !(targets[message] & 1) -> message++
  :: message <= MESSAGES && (targets[message] & 1) ->
     do
     :: memory[TICKET(0, received % SLOTS)] == received + 1 -> break
     :: else -> turn(buffer1, 1)
     od;
     atomic {
     progressed(buffer1, 1);
     at = memory[OFFSET(0, received % SLOTS)]
     }
     assert(memory[at] == message); /* the payload, at any time between arrival and release */
     atomic {
     received++;
     buffer1!ACKNOWLEDGED(0), received;
     at = 0
     }
#ifndef BROKEN_RINGER
     fence(buffer1);
#endif
     ring_if_asleep(buffer1, 0);
     message++
  od
}

/* Rank 2 spins instead of sleeping, and its stores are seen at once. */
proctype spinner() {
  byte message = 1, received, at;
  do
  :: message > MESSAGES -> break
  :: message <= MESSAGES && !(targets[message] & 2) -> message++
  :: message <= MESSAGES && (targets[message] & 2) ->
     atomic {
     memory[TICKET(1, received % SLOTS)] == received + 1;
     at = memory[OFFSET(1, received % SLOTS)]
     }
     assert(memory[at] == message);
     atomic {
     received++;
     memory[ACKNOWLEDGED(1)] = received;
     message++;
     at = 0
     }
     if
     :: memory[ASLEEP(0)] -> ring(0)
     :: else
     fi
  od
}

init {
  byte i;
  atomic {
    for (i : 1 .. MESSAGES) {
      if
      :: targets[i] = 1
      :: targets[i] = 2
      :: targets[i] = 3
      fi
    }
    i = 0;
    run drain(buffer0);
    run drain(buffer1);
    run reader();
    run spinner();
    run sender()
  }
}

/* See team.h.
 *
 * A: The caller opens a job by setting how many places are `vacant`. A worker takes one by lowering it, the caller
 *    closes the job by exchanging it for 0, which tells it the size. From then on nobody comes in, and who is in waits
 *    until `size` is known. A late worker may take a place of the next job, which is as good.
 *    A job of parts that do not meet has as many places as parts, `size` is known from the start, and the caller takes
 *    places as the others do. Nobody waits for a thread to wake up, which takes 40 to 65 us on a virtual machine.
 * B: Whoever waits looks over and over for a while, then gives its time slice away between looks, then naps. Where two
 *    members are on one core, for there are more members than cores or the system has put them there, the one that is
 *    waited for has to get it; and the system moves who wakes up to an idle core, but leaves who is running. Two on one
 *    core of two took 2 times as long as one alone when they only looked and yielded.
 *    A thread that has slept is often put on the very CPU of who wakes it, and runs in turn with it beside an idle one
 *    for milliseconds: so before they are woken, workers are forbidden that CPU. After 5 ms of rest on two CPUs of a
 *    virtual machine a job found its helper within 2 ms in 79 of 300 cases, and so in 298. Once awake they may go where
 *    they like again: kept where another process is busy, an LSTM of one sequence took 8.5 times as long.
 * C: Workers without a job go to sleep after AWAKE. A loop in Python comes back after 100 us and more, for what a job reads
 *    drives the interpreter out of the caches: with 100 us most jobs of 0.3 to 3 ms found their helper asleep. With 500,
 *    calls one after another on two cores of a Zen 3: RNN of one sequence and 512 units 1.84 times as fast, LSTM of 128
 *    1.6, of 32 sequences and 50 units 1.16; a further 0.9 to 1.25 with 2000. Other libraries' threads look for 1 to 30 ms.
 */
#define _GNU_SOURCE /* CPU affinity */
#include "team.h"

#if defined(__GNUC__) && !defined(_WIN32)

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#define AWAKE 1000000L /* ns that a worker looks for the next job, see C */
#define WAKING 50000L /* ns that one may take to wake up. A job that should not wait for that wakes the team only if it
                         follows closely on others that took as long, for it is the next that will find it awake. */
#define CALLING 20000L /* the same for parts that do not meet: who comes late, with cold caches, has to be of use yet */
#define LOOKS 2000 /* 20 us */
#define YIELDS 20

static struct {
    fr_work work;
    void *job;
    int wanted;
    int workers, sleeping;
    pthread_t threads[FR_MOST_MEMBERS];
#ifdef CPU_COUNT
    cpu_set_t cpus[FR_MOST_MEMBERS]; /* where each may be */
    char kept_away[FR_MOST_MEMBERS]; /* from one of them */
#endif
    long last;  /* when the last job ended */
    long alone; /* ns that jobs took which came one after another and found it asleep */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* On lines of their own: each is watched by some while others are written. */
    _Alignas(64) int vacant;
    _Alignas(64) unsigned opened; /* jobs so far */
    _Alignas(64) int size;        /* of this job, 0 as long as it is not known */
    _Alignas(64) int left;        /* members that have not finished */
    _Alignas(64) int busy;
} team = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

#define GET(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define SET(x, value) __atomic_store_n(&(x), value, __ATOMIC_RELEASE)

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void look_again(int *looks) { /* B */
    static const struct timespec nap = {.tv_nsec = 10000};
    ++*looks;
    if (*looks > LOOKS + YIELDS)
        nanosleep(&nap, NULL);
    else if (*looks > LOOKS)
        sched_yield();
#if defined(__x86_64__)
    else if (*looks > 100)
        __builtin_ia32_pause();
#endif
}

static int take_place(void) { /* which vacant one, or 0 where there is none */
    int place = GET(team.vacant);
    while (place &&
           !__atomic_compare_exchange_n(&team.vacant, &place, place - 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    return place;
}

static void *worker(void *place_of_it) {
    const ptrdiff_t me = (pthread_t *)place_of_it - team.threads;
    (void)me; /* where there is no affinity */
    unsigned seen = 0;
    long since = now();
    for (;;) {
        if (GET(team.opened) == seen) {
            int looks = 0;
            while (GET(team.opened) == seen && looks < LOOKS) look_again(&looks);
            if (GET(team.busy)) since = now(); /* the next job may follow on this one, which did not wait */
            if (GET(team.opened) == seen && now() - since > AWAKE) {
                pthread_mutex_lock(&team.lock); /* C */
                __atomic_add_fetch(&team.sleeping, 1, __ATOMIC_SEQ_CST);
                while (__atomic_load_n(&team.opened, __ATOMIC_SEQ_CST) == seen)
                    pthread_cond_wait(&team.wake, &team.lock);
                __atomic_sub_fetch(&team.sleeping, 1, __ATOMIC_SEQ_CST);
#ifdef CPU_COUNT
                if (team.kept_away[me]) {
                    sched_setaffinity(0, sizeof team.cpus[me], &team.cpus[me]);
                    team.kept_away[me] = 0;
                }
#endif
                pthread_mutex_unlock(&team.lock);
            }
            if (GET(team.opened) == seen) continue;
        }
        seen = GET(team.opened);
        for (int place; (place = take_place());) {
            for (int looks = 0; !GET(team.size);) look_again(&looks);
            team.work(team.job, team.wanted - place, team.size);
            __atomic_sub_fetch(&team.left, 1, __ATOMIC_ACQ_REL);
        }
        since = now();
    }
    return NULL;
}

static void forget_threads(void) { /* the child of a fork has none of its parent's */
    team.workers = team.sleeping = team.busy = team.left = 0;
    team.vacant = 0;
#ifdef CPU_COUNT
    for (int i = 0; i < FR_MOST_MEMBERS; i++) team.kept_away[i] = 0;
#endif
    pthread_mutex_init(&team.lock, NULL);
    pthread_cond_init(&team.wake, NULL);
}

__attribute__((constructor)) static void tell_of_forks(void) { pthread_atfork(NULL, NULL, forget_threads); }

static void hire(int workers) {
    sigset_t all, before;
    sigfillset(&all); /* signals are for the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; team.workers < workers; team.workers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, &team.threads[team.workers])) break;
        pthread_detach(thread);
        team.threads[team.workers] = thread;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

#ifdef CPU_COUNT
static void keep_away(int workers) { /* from this CPU, those who may be elsewhere; B. With the lock. */
    const int home = sched_getcpu();
    for (int i = 0; i < workers && home >= 0; i++) {
        cpu_set_t *mine = &team.cpus[i], others;
        if (team.kept_away[i] || pthread_getaffinity_np(team.threads[i], sizeof *mine, mine)) continue;
        others = *mine;
        CPU_CLR(home, &others);
        if (CPU_EQUAL(mine, &others) || !CPU_COUNT(&others)) continue;
        team.kept_away[i] = !pthread_setaffinity_np(team.threads[i], sizeof others, &others);
    }
}
#endif

static void leave_team(void) {
    for (int looks = 0; GET(team.left);) look_again(&looks);
    team.last = now();
    SET(team.busy, 0);
}

/* Whether this caller has the team now. If not, for others have it or it sleeps and is not worth waking, the job has
 * been done. */
static int take_team(fr_work work, void *job, int wanted, long patience, long waking) {
    int free_team = 0;
    if (wanted < 2 || !__atomic_compare_exchange_n(&team.busy, &free_team, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        work(job, 0, 1);
        return 0;
    }
    if (patience < waking && (team.workers == 0 || GET(team.sleeping))) {
        const long start = now();
        if (start - team.last > AWAKE) team.alone = 0;
        if (team.alone < WAKING) {
            work(job, 0, 1);
            team.alone += now() - start;
            leave_team();
            return 0;
        }
        team.alone = 0;
    }
    if (team.workers < wanted - 1) hire(wanted - 1);
    return 1;
}

static void open_job(fr_work work, void *job, int wanted, int places) {
    team.work = work;
    team.job = job;
    team.wanted = wanted;
    SET(team.vacant, places); /* A */
    __atomic_add_fetch(&team.opened, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&team.sleeping, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&team.lock);
#ifdef CPU_COUNT
        keep_away(wanted - 1);
#endif
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.lock);
    }
}

int fr_team_run(fr_work work, void *job, int wanted, long patience) {
    if (wanted > FR_MOST_MEMBERS) wanted = FR_MOST_MEMBERS;
    if (!take_team(work, job, wanted, patience, WAKING)) return 1;
    team.size = 0;
    open_job(work, job, wanted, wanted - 1);
    const long until = now() + patience;
    while (GET(team.vacant) && now() < until) {}
    const int size = wanted - __atomic_exchange_n(&team.vacant, 0, __ATOMIC_ACQ_REL);
    team.left = size - 1;
    SET(team.size, size);
    work(job, 0, size);
    leave_team();
    return size;
}

void fr_team_share(fr_work work, void *job, int parts, long patience) {
    if (parts > FR_MOST_MEMBERS) parts = FR_MOST_MEMBERS;
    if (!take_team(work, job, parts, patience, CALLING)) return;
    team.size = team.left = parts;
    open_job(work, job, parts, parts);
    for (int place; (place = take_place());) {
        work(job, parts - place, parts);
        __atomic_sub_fetch(&team.left, 1, __ATOMIC_ACQ_REL);
    }
    leave_team();
}

int fr_team_cpus(void) {
#ifdef CPU_COUNT
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

void fr_barrier_wait(fr_barrier *barrier, int size) {
    if (size < 2) return;
    const unsigned turn = GET(barrier->turn);
    if (__atomic_add_fetch(&barrier->waiting, 1, __ATOMIC_ACQ_REL) == (unsigned)size) {
        barrier->waiting = 0;
        SET(barrier->turn, turn + 1);
        return;
    }
    for (int looks = 0; GET(barrier->turn) == turn;) look_again(&looks);
}

void fr_progress_raise(fr_progress *progress, long value) { SET(progress->value, value); }

void fr_progress_wait(fr_progress *progress, long value) {
    for (int looks = 0; GET(progress->value) < value;) look_again(&looks);
}

#else

int fr_team_run(fr_work work, void *job, int wanted, long patience) {
    (void)wanted, (void)patience;
    work(job, 0, 1);
    return 1;
}

void fr_team_share(fr_work work, void *job, int parts, long patience) {
    (void)parts, (void)patience;
    work(job, 0, 1);
}

int fr_team_cpus(void) { return 1; }
void fr_barrier_wait(fr_barrier *barrier, int size) { (void)barrier, (void)size; }
void fr_progress_raise(fr_progress *progress, long value) { progress->value = value; }
void fr_progress_wait(fr_progress *progress, long value) { (void)progress, (void)value; }

#endif

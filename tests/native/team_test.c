/* The team of threads: every rank works once, sees what the others did before they met, and nobody is left waiting.
 * ThreadSanitizer tells where that would be luck.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "team.h"

#define MOST 8
#define ROUNDS 50
#define PATIENT 10000000000L /* ns: all come, however busy the machine is */
#define CHECK(fine)                                                                                                    \
    do {                                                                                                               \
        if (!(fine)) fprintf(stderr, "FAILED line %d: %s\n", __LINE__, #fine), _Exit(1);                               \
    } while (0)

typedef struct {
    int ran[MOST], said[MOST], passed[ROUNDS];
    fr_barrier barrier;
    fr_progress progress[MOST];
} rounds;

static void alone(void *job, int rank, int size) {
    CHECK(rank == 0 && size == 1);
    *(int *)job += 1;
}

/* Nothing here is atomic: only the team keeps the members apart. */
static void work(void *job, int rank, int size) {
    rounds *r = job;
    r->ran[rank]++;
    for (int round = 0; round < ROUNDS; round++) {
        r->said[rank] = round * rank;
        fr_barrier_wait(&r->barrier, size);
        for (int other = 0; other < size; other++) CHECK(r->said[other] == round * other);
        fr_barrier_wait(&r->barrier, size);
    }
    for (int round = 0; round < ROUNDS; round++) { /* one behind the other */
        if (rank > 0) fr_progress_wait(&r->progress[rank - 1], round + 1);
        CHECK(r->passed[round]++ == rank);
        fr_progress_raise(&r->progress[rank], round + 1);
    }
    if (size > 1) { /* a job within a job finds the team at work */
        int ran = 0;
        CHECK(fr_team_run(alone, &ran, MOST, PATIENT) == 1 && ran == 1);
    }
}

static int run(int wanted, long patience) {
    rounds r;
    memset(&r, 0, sizeof r);
    const int size = fr_team_run(work, &r, wanted, patience);
    CHECK(1 <= size && size <= wanted);
    for (int rank = 0; rank < MOST; rank++) CHECK(r.ran[rank] == (rank < size));
    for (int round = 0; round < ROUNDS; round++) CHECK(r.passed[round] == size);
    return size;
}

/* Parts that do not meet: each is done once, and what was done is seen by the caller. */
static void part(void *job, int rank, int size) {
    int *ran = job;
    CHECK(rank < size && size <= MOST);
    ran[rank]++;
    ran[MOST + rank] = size;
    if (rank % 2) {
        const struct timespec nap = {0, 20000};
        nanosleep(&nap, NULL); /* so that others come to take some */
    }
}

static void share(int parts, long patience) {
    int ran[2 * MOST] = {0};
    fr_team_share(part, ran, parts, patience);
    const int size = ran[MOST];
    CHECK(size == 1 || size == parts);
    for (int rank = 0; rank < MOST; rank++)
        CHECK(ran[rank] == (rank < size) && ran[MOST + rank] == (rank < size ? size : 0));
}

static void *caller(void *number) {
    const int wanted = 2 + *(int *)number % 3;
    for (int i = 0; i < 20; i++) {
        const int size = run(wanted, PATIENT);
        CHECK(size == 1 || size == wanted);
        share(wanted, PATIENT);
    }
    return NULL;
}

#ifdef __SANITIZE_THREAD__
static void fork_now(void) {} /* ThreadSanitizer cannot follow a process of several threads into a fork */
#else
static void fork_now(void) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(300);
        CHECK(run(3, PATIENT) == 3); /* with a team of its own, though the parent's may have been at work */
        _Exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}
#endif

int main(void) {
    pthread_t threads[MOST];
    int numbers[MOST];
    const struct timespec nap = {0, 2000000};
    alarm(600); /* a member that waits forever is a failure too */
    CHECK(fr_team_cpus() >= 1);
    for (int wanted = 1; wanted <= MOST; wanted++)
        for (int i = 0; i < 10; i++) {
            CHECK(run(wanted, PATIENT) == wanted);
            run(wanted, i * 1000); /* whoever comes */
            share(wanted, i * 1000);
            share(wanted, PATIENT);
            if (i % 5 == 0) nanosleep(&nap, NULL); /* so that they fall asleep */
        }
    fork_now();
    for (int i = 0; i < MOST; i++) {
        numbers[i] = i;
        CHECK(!pthread_create(&threads[i], NULL, caller, &numbers[i]));
    }
    for (int i = 0; i < 5; i++) fork_now();
    for (int i = 0; i < MOST; i++) CHECK(!pthread_join(threads[i], NULL));
    puts("team: passed");
    return 0;
}

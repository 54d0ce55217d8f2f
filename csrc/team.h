/* A team of threads for jobs of 20 us and more, in plain C: it never meets Python, and its hand-over takes well under a
 * microsecond while the team is awake.
 *
 * A job falls into parts that do not meet, and then nobody waits: whoever comes takes the next part, the caller too. Or
 * its members meet. Then it says how many it would like and how long it is willing to wait for them, and who has not
 * come by then is not in it: a thread whose core is busy with something else costs a job its patience and no more.
 *
 * A job that finds the team at work, in the child of a fork before threads were made again, or on a system without
 * POSIX threads, runs on its caller alone. So a job must be able to run with any number of members from one to what it
 * asked for.
 */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H

#define FR_MOST_MEMBERS 64

/* A member's part of a job: 0 <= rank < size. */
typedef void (*fr_work)(void *job, int rank, int size);

/* Call work(job, rank, size) for each rank at the same time, in at most `wanted` threads, the caller as rank 0; return
 * the size. At most `patience` nanoseconds are spent waiting for others to come. */
int fr_team_run(fr_work work, void *job, int wanted, long patience);

/* Call work(job, part, parts) once for each part, in at most so many threads; or work(job, 0, 1) where nobody could come.
 * Threads that sleep are woken only if what that takes is less than `patience` nanoseconds. */
void fr_team_share(fr_work work, void *job, int parts, long patience);

/* How many CPUs this process may use; a team is never larger. */
int fr_team_cpus(void);

/* Where `size` members wait for one another, over and over. Begins as all zeros. */
typedef struct {
    unsigned waiting, turn;
    char own_cache_line[56];
} fr_barrier;
void fr_barrier_wait(fr_barrier *barrier, int size);

/* A counter that one member raises and others wait for. */
typedef struct {
    long value;
    char own_cache_line[56];
} fr_progress;
void fr_progress_raise(fr_progress *progress, long value);
void fr_progress_wait(fr_progress *progress, long value);

#endif

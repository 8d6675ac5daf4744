/* Sleeping by a clock that only counts, for tests: loaded before libfaketime by LD_PRELOAD.
 *
 * libfaketime 0.9.10 turns "until this time of CLOCK_MONOTONIC", as Python's time.sleep asks for it, into a time before
 * the first one, although it is to leave that clock alone: each sleep fails with EINVAL. A real jump changes no such sleep.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *left)
{
    return syscall(SYS_clock_nanosleep, clock, flags, request, left) == -1 ? errno : 0;
}

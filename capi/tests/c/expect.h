/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Expectations for the test programs: what does not hold is printed, and main() returns how many did not. */
#ifndef CATNIP_TESTS_EXPECT_H
#define CATNIP_TESTS_EXPECT_H

#include <stdio.h>
#include <string.h>

static int expect_failures;

static inline void expect_equal(long long actual, long long expected, const char *what, const char *file, int line)
{
    if (actual != expected) {
        fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", file, line, what, actual, expected);
        expect_failures++;
    }
}

/* Two integers are equal. */
#define EXPECT(actual, expected) expect_equal((long long)(actual), (long long)(expected), #actual, __FILE__, __LINE__)

/* An error number: its name is printed as well. */
static inline void expect_error(int actual, int expected, const char *what, const char *file, int line)
{
    if (actual != expected) {
        fprintf(stderr, "%s:%d: %s is %d (%s), expected %d (%s)\n", file, line, what, actual, strerror(actual),
                expected, strerror(expected));
        expect_failures++;
    }
}
#define EXPECT_ERROR(actual, expected) expect_error((actual), (expected), #actual, __FILE__, __LINE__)

#endif /* CATNIP_TESTS_EXPECT_H */

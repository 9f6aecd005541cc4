/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A histogram of 64-bit values in fixed memory, log-linear like an HDR histogram: every power of two is cut
 * into 64 equal steps, so that a percentile is at most 1/64 above the value that was recorded.
 */
#ifndef EXAMPLE_HISTOGRAM_H
#define EXAMPLE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_STEP_BITS 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_SLOTS ((64 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

struct histogram {
    uint64_t slots[HISTOGRAM_SLOTS];
    uint64_t count;
    uint64_t max;
};

/* Values below 64 have a slot each; above, the 6 bits after the leading one choose the step. */
static inline unsigned histogram_slot(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return (shift + 1) * HISTOGRAM_STEPS + (unsigned)((value >> shift) - HISTOGRAM_STEPS);
}

/* The largest value that falls into the slot. */
static inline uint64_t histogram_slot_top(unsigned slot)
{
    if (slot < HISTOGRAM_STEPS)
        return slot;
    unsigned shift = slot / HISTOGRAM_STEPS - 1;
    uint64_t step = slot % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
    return ((step + 1) << shift) - 1;
}

static inline void histogram_record(struct histogram *histogram, uint64_t value)
{
    histogram->slots[histogram_slot(value)]++;
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
}

/* The value that per_mille of 1000 recorded values do not exceed. */
static inline uint64_t histogram_percentile(const struct histogram *histogram, unsigned per_mille)
{
    uint64_t wanted = (histogram->count * per_mille + 999) / 1000;
    uint64_t seen = 0;
    for (unsigned slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += histogram->slots[slot];
        if (seen >= wanted && seen > 0) {
            uint64_t top = histogram_slot_top(slot);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}

/* One line: how many, and the round-trip times in microseconds. */
static inline void histogram_print(const struct histogram *histogram, const char *what)
{
    printf("%s: %llu round trips, p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f us\n", what,
           (unsigned long long)histogram->count, (double)histogram_percentile(histogram, 500) / 1000.0,
           (double)histogram_percentile(histogram, 990) / 1000.0,
           (double)histogram_percentile(histogram, 999) / 1000.0, (double)histogram->max / 1000.0);
}

#endif /* EXAMPLE_HISTOGRAM_H */

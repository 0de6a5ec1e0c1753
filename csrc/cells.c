/* Sorts the channels of every cell by the place that their switches name: the lists of gather.h.
 *
 * What    Counting sort: counts how many channels each place has, then puts each channel where its
 *         place begins. On AVX-512, where one instruction compares 64 switches, the channels of one
 *         place are found after the other instead, and no branch depends on a switch.
 * Layout  order (cells, channels), first (cells, places + 1): see fd_source. Channels whose gate is
 *         0 are left out, and the end of the cell's list is filled with 0, which is a valid
 *         channel: lists are copied several entries at a time (FD_COPY), so it is read, though not
 *         used.
 * Mix     On AVX-512, per place of a cell and 64 channels: a comparison, 4 compresses, 4 stores.
 * Numbers No arithmetic.
 */
#include <string.h>

#include "units.h"

static void sort_by_counting(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                             const uint8_t *gate, int channels, int places, int32_t *order,
                             int32_t *first, int cell0, int cell1) {
    for (int cell = cell0; cell < cell1; cell++) {
        const size_t row = (size_t)cell * channels;
        int32_t *to = order + row, *count = first + (size_t)cell * (places + 1);
        memset(count, 0, sizeof *count * (places + 1));
        for (int pass = 0; pass < 2; pass++) {
            for (int c = 0; c < channels; c++) {
                if (gate && !gate[row + c]) continue;
                const uint32_t place =
                    switches ? fd_switch(switches, switch_bytes, cell * switch_cell + c) : 0;
                if (pass)
                    to[count[place]++] = c;
                else
                    count[place + 1]++;
            }
            /* count[p] is where place p begins, now; after the second pass, where it ends. */
            if (!pass)
                for (int p = 0; p < places; p++) count[p + 1] += count[p];
        }
        memmove(count + 1, count, sizeof *count * places);
        count[0] = 0;
        memset(to + count[places], 0, sizeof *to * (channels - count[places]));
    }
}

#if VW == 16
/* With more places, comparing takes longer than counting. */
#define MOST_COMPARED 16

/* Which of channels c..c+63 have the switch `place` and an open gate, as bits. there: the channels
 * that exist. */
FD_INLINE uint64_t channels_at(const uint8_t *switches, const uint8_t *gate, int c, int place,
                               uint64_t there) {
    if (gate) {
        const __m512i open = _mm512_maskz_loadu_epi8(there, gate + c);
        there = _mm512_test_epi8_mask(open, open);
    }
    if (!switches) return there;
    const __m512i own = _mm512_maskz_loadu_epi8(there, switches + c);
    return _mm512_mask_cmpeq_epi8_mask(there, own, _mm512_set1_epi8((char)place));
}

/* Sorts one cell: lists its channels at place 0, then those at place 1, and so on. */
static void sort_by_comparing(const uint8_t *switches, const uint8_t *gate, int channels,
                              int places, int32_t *order, int32_t *first) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int count = 0;
    first[0] = 0;
    for (int place = 0; place < places; place++) {
        for (int c = 0; c < channels; c += 64) {
            const int n = channels - c < 64 ? channels - c : 64;
            uint64_t some = channels_at(switches, gate, c, place, ~UINT64_C(0) >> (64 - n));
            for (int i = c; i < c + n; i += 16, some >>= 16) {
                const __mmask16 here = (__mmask16)some;
                const int found = __builtin_popcount(here);
                const __m512i numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
                /* Stores no more than have been found: the next cell may be another thread's. */
                _mm512_mask_storeu_epi32(order + count, (__mmask16)((1u << found) - 1),
                                         _mm512_maskz_compress_epi32(here, numbers));
                count += found;
            }
        }
        first[place + 1] = count;
    }
    memset(order + count, 0, sizeof *order * (channels - count));
}
#endif

void FD_NAME(fd_sort_cells)(const void *switches, int switch_bytes, ptrdiff_t switch_cell,
                            const uint8_t *gate, int channels, int places, int32_t *order,
                            int32_t *first, int cell0, int cell1) {
#if VW == 16
    if (switch_bytes == 1 && places <= MOST_COMPARED) {
        const uint8_t *own = switches;
        for (ptrdiff_t cell = cell0; cell < cell1; cell++)
            sort_by_comparing(own ? own + cell * switch_cell : NULL,
                              gate ? gate + cell * channels : NULL, channels, places,
                              order + cell * channels, first + cell * (places + 1));
        return;
    }
#endif
    sort_by_counting(switches, switch_bytes, switch_cell, gate, channels, places, order, first,
                     cell0, cell1);
}

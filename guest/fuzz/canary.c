/* A parser with a fault, behind three letters: who does not find it would find nothing else. */
#include "fuzz.h"

void fuzz_canary(const unsigned char *bytes, size_t length)
{
    static volatile unsigned char taken;
    if (length > 0 && bytes[0] == 'E')
        if (length > 1 && bytes[1] == 'G')
            if (length > 2 && bytes[2] == 'G')
                taken = bytes[length]; /* one byte too many */
    (void)taken;
}

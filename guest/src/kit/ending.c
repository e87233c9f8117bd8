/* Ends by signals. */
#include "ending.h"

#include <signal.h>
#include <unistd.h>

static void end(int number)
{
    (void)number;
    _exit(0);
}

void end_by_signals(void)
{
    signal(SIGTERM, end);
    signal(SIGINT, end);
}

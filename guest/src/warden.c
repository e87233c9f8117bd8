/* PID 1's care for the services' keeper: whoever kills it finds another one, which takes over what runs. */
#include "warden.h"
#include "event.h"
#include "loop.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A service that ended while no keeper was there: its status is written down for the next one, where that is wanted. */
static void keep_end(pid_t pid, int status)
{
    scoped_free char *path = format(STATE_DIR "/ends/%d", (int)pid), *text = format("%d\n", status);
    if (exists(path) && write_file(path, text) < 0)
        say("%s: %s", path, strerror(errno));
}

void warden_reaped(struct loop *loop, pid_t pid, int status)
{
    struct warden *warden = &loop->warden;
    scoped_free char *line = read_line(KEEPER_FILE);
    int keeper = 0;
    unsigned long long start;
    char word[16] = "";
    if (!line || sscanf(line, "%d %llu %15s", &keeper, &start, word) != 3 || keeper != pid) {
        keep_end(pid, status);
        return;
    }
    double t = now(), delay = policy_next(&warden->policy, RESTART_ALWAYS, 1, t - warden->since);
    if (loop->ending)
        return;
    memcpy(warden->word, word, sizeof(word));
    warden->since = warden->due = t + delay;
    say("the keeper of services ended with status %d; again in %.1f s", status_code(status), delay);
    loop_report(loop, &(struct event){.event = "exit", .step = "keeper", .ended = true, .status = status_code(status),
                                      .signal = status_signal(status)});
}

void warden_step(struct loop *loop)
{
    struct warden *warden = &loop->warden;
    if (!warden->due || warden->due > now() || loop->ending)
        return;
    warden->due = 0;
    const char *argv[] = {"/usr/bin/service", warden->word, NULL};
    if (spawn(&(struct spawn){.argv = argv}) < 0) {
        say("%s: %s", argv[0], strerror(errno));
        warden->due = now() + 1;
    }
}

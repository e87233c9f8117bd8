/* metadata [-v] [PROVIDER...]: who is this machine, asked where it runs. All providers are asked side by side, each in
 * a process of its own, and the first in the order of preference that answers is chosen: nobody's silence costs more
 * than METADATA_SECONDS, and nobody's answer can do more than end its process. */
#define _GNU_SOURCE
#include "command.h"
#include "metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define GRACE 0.5       /* seconds on top, for the processes to start and to say no */
#define PATIENCE 6.0     /* seconds for a service that has to be there, as the firmware says */
#define DISK_SECONDS 1.0 /* for a drive to appear, when someone said that there is one */

/* -- asking */

enum verdict { NOT_YET, ANSWERED_NO, ANSWERED_YES };

struct asked {
    pid_t pid;
    int answers, orders; /* from it: Y or N; to it: anything means go on */
    enum verdict verdict;
};

static int child_main(const struct provider *provider, int answers, int orders)
{
    char go;
    bool here = provider->probe(provider);
    if (write(answers, here ? "Y" : "N", 1) != 1 || !here || read(orders, &go, 1) != 1)
        return 0;
    metadata_options.patient = true;
    metadata_options.progress = answers;
    bool complete = provider->extract(provider);
    return store_text("provider", provider->shown) && complete ? 0 : 1;
}

static bool start(struct asked *asked, const struct provider *provider)
{
    int up[2], down[2];
    if (pipe2(up, O_CLOEXEC) < 0)
        return false;
    if (pipe2(down, O_CLOEXEC) < 0) {
        close(up[0]), close(up[1]);
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(up[0]), close(down[1]);
        exit(child_main(provider, up[1], down[0]));
    }
    close(up[1]), close(down[0]);
    *asked = (struct asked){.pid = pid, .answers = up[0], .orders = down[1]};
    asked->verdict = pid < 0 ? ANSWERED_NO : NOT_YET;
    return pid >= 0;
}

static void drop(struct asked *asked)
{
    close(asked->answers), close(asked->orders);
    if (asked->pid > 0) {
        kill(asked->pid, SIGKILL);
        while (waitpid(asked->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
}

/* The first that said yes after all before it have said no, or `count` when nobody has, in time. */
static size_t choose(struct asked *asked, size_t count, double deadline)
{
    for (;;) {
        struct pollfd polls[WANTED_MAX];
        size_t first = 0, open = 0;
        while (first < count && asked[first].verdict == ANSWERED_NO)
            first++;
        if (first == count || asked[first].verdict == ANSWERED_YES)
            return first;
        double left = deadline - now();
        if (left <= 0) { /* silence is a no */
            while (first < count && asked[first].verdict != ANSWERED_YES)
                first++;
            return first;
        }
        size_t which[WANTED_MAX];
        for (size_t i = 0; i < count; i++)
            if (asked[i].verdict == NOT_YET) {
                which[open] = i;
                polls[open++] = (struct pollfd){.fd = asked[i].answers, .events = POLLIN};
            }
        if (poll(polls, open, (int)(left * 1e3) + 1) <= 0)
            continue;
        for (size_t i = 0; i < open; i++) {
            char answer;
            if (polls[i].revents)
                asked[which[i]].verdict =
                    read(polls[i].fd, &answer, 1) == 1 && answer == 'Y' ? ANSWERED_YES : ANSWERED_NO;
        }
    }
}

/* Lets the chosen one fetch what there is. False: it failed, or brought nothing for too long. */
static bool let_extract(struct asked *chosen, const struct provider *provider)
{
    int status = 0;
    double deadline = now() + EXTRACT_SECONDS;
    if (write(chosen->orders, "G", 1) != 1)
        return false;
    while (now() < deadline) {
        char dots[64];
        struct pollfd more = {.fd = chosen->answers, .events = POLLIN};
        if (poll(&more, 1, (int)((deadline - now()) * 1e3) + 1) <= 0)
            continue;
        if (read(more.fd, dots, sizeof(dots)) <= 0) /* its end closes the pipe */
            break;
        deadline = now() + EXTRACT_SECONDS;
    }
    if (now() >= deadline)
        kill(chosen->pid, SIGKILL);
    while (waitpid(chosen->pid, &status, 0) < 0 && errno == EINTR)
        ;
    chosen->pid = 0;
    if (status == 0)
        return true;
    if (now() >= deadline)
        note("%s: nothing came for %.0f s", provider->shown, EXTRACT_SECONDS);
    else if (WIFSIGNALED(status))
        note("%s: ended by signal %d", provider->shown, WTERMSIG(status));
    return false;
}

/* True: one of them is here; `complete`: and all it had has been fetched. */
static bool ask_providers(const struct wanted *wanted, bool *complete)
{
    struct asked asked[WANTED_MAX];
    double begin = now();
    for (size_t i = 0; i < wanted->count; i++)
        if (!start(&asked[i], wanted->list[i])) {
            note("%s: %s", wanted->list[i]->name, strerror(errno));
            asked[i] = (struct asked){.answers = -1, .orders = -1, .verdict = ANSWERED_NO};
        }
    size_t chosen = choose(asked, wanted->count, begin + METADATA_SECONDS + GRACE);
    for (size_t i = 0; i < wanted->count; i++)
        if (i != chosen)
            drop(&asked[i]);
    if (chosen == wanted->count) {
        detail("none of %zu providers after %.0f ms", wanted->count, (now() - begin) * 1e3);
        return false;
    }
    note("%s: found after %.0f ms", wanted->list[chosen]->shown, (now() - begin) * 1e3);
    *complete = let_extract(&asked[chosen], wanted->list[chosen]);
    drop(&asked[chosen]);
    return true;
}

/* A service may come up after the machine does. Whose firmware speaks for a cloud is asked for a while. */
static bool ask_again(const struct wanted *wanted, bool *complete)
{
    const char *hint = hinted();
    struct wanted one = {0};
    double deadline = now() + PATIENCE;
    for (size_t i = 0; hint && i < wanted->count; i++)
        if (!strcmp(wanted->list[i]->name, hint) && strcmp(hint, "vmware")) /* which may have nothing to say */
            one.list[one.count++] = wanted->list[i];
    if (!one.count)
        return false;
    note("%s does not answer, and the firmware says that this is it: asking on", one.list[0]->shown);
    while (now() < deadline) {
        pause_ms(300);
        if (ask_providers(&one, complete))
            return true;
    }
    return false;
}

static bool ask_disks(const struct wanted *wanted)
{
    scoped_free char *shown = NULL;
    double deadline = now() + (wanted->disks_named ? DISK_SECONDS : 0);
    while (!disk_extract(&shown)) {
        if (now() >= deadline)
            return false;
        pause_ms(100);
    }
    return store_text("provider", shown);
}

static bool ask_files(const struct wanted *wanted, bool *complete)
{
    for (size_t i = 0; i < wanted->file_count; i++) {
        size_t length;
        scoped_free char *text = read_file(wanted->files[i], USERDATA_MAX, &length);
        if (!text && errno == ENOENT)
            continue;
        if (!text)
            note("%s: %s", wanted->files[i], strerror(errno));
        *complete = text && store_userdata(text, length) && store_text("provider", wanted->files[i]);
        return true;
    }
    return false;
}

/* The kernel takes 64 bytes; of a longer name the part before the first dot. */
static void name_host(void)
{
    scoped_free char *path = format("%s/hostname", metadata_options.config);
    scoped_free char *name = read_line(path);
    if (!name)
        return;
    name[strcspn(name, " \t\r")] = 0;
    if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._") != strlen(name)) {
        note("host name %s: not letters, digits, dots and hyphens", name);
        return;
    }
    if (strlen(name) > 64)
        name[strcspn(name, ".")] = 0;
    if (strcmp(metadata_options.config, CONFIG) || !*name)
        return; /* someone tries something out: the machine keeps its name */
    if (sethostname(name, strlen(name)) < 0)
        note("host name %s: %s", name, strerror(errno));
    else
        detail("host name: %s", name);
}

int main(int argc, char **argv)
{
    struct wanted wanted = {0};
    const struct flag flags[] = {
        {.names = "v", .yes = &metadata_options.verbose, .help = "say what is asked, and what comes of it"},
        {.names = "config", .text = &metadata_options.config, .help = "where the answers go (" CONFIG ")"},
        {.names = "base", .text = &metadata_options.base, .help = "http://ADDRESS:PORT that is asked instead of all"},
        {.names = "root", .text = &metadata_options.root, .help = "where /proc, /sys and /dev are"},
        {.names = "n", .yes = &metadata_options.dry, .help = "print a network plan instead of carrying it out"},
    };
    size_t count;
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    scoped_free char *names = providers_list();
    scoped_free char *how = format("metadata [-v] [-n] [-config DIR] [-base URL] [-root DIR] [PROVIDER...]\n"
                                   "providers: %scdrom file=PATH", names);
    program_is("metadata", how);
    scoped_free const char **named = command_read(flags, COUNT(flags), argc, argv, &count);
    for (size_t i = 0; i < count; i++)
        if (!want(&wanted, named[i]))
            usage("unknown provider: %s", named[i]);
    metadata_options.patient = count > 0;
    if (!count)
        want_default(&wanted);
    if (!store_open())
        return 1;
    bool complete = true;
    bool found = (wanted.count && (ask_providers(&wanted, &complete) || ask_again(&wanted, &complete))) ||
                 (wanted.disks && ask_disks(&wanted)) ||
                 (wanted.file_count && ask_files(&wanted, &complete));
    if (!found) {
        note("nobody here has metadata or user data");
        return 0;
    }
    name_host();
    return complete ? 0 : 1;
}

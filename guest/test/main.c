/* Drives the guest's parts from tests/guest: test-guest WORD ARGUMENT..., results on standard output. */
#define _GNU_SOURCE
#include "../include/bootstage.h"
#include "../include/console.h"
#include "../include/event.h"
#include "../include/modules.h"
#include "../include/service.h"
#include "../include/setup.h"
#include "../include/shutdown.h"
#include "../include/spawn.h"
#include "../include/stream.h"
#include "../include/supervisor.h"
#include "../include/util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[] = {"onboot", "onshutdown", "service"};
static const char *const restarts[] = {"no", "on-failure", "always"};

/* plan FILE: what the parser made of it, one `word=value` a line. */
static int test_plan(char **args)
{
    scoped_plan plan;
    char error[200];
    if (plan_read(&plan, args[0], error, sizeof(error)) < 0) {
        printf("error=%s\n", error);
        return 1;
    }
    for (size_t i = 0; i < plan.volume_count; i++)
        printf("volume %s %s %s\n", plan.volumes[i].name, plan.volumes[i].directory,
               plan.volumes[i].readonly ? "ro" : "rw");
    for (size_t i = 0; i < plan.container_count; i++) {
        const struct container *at = &plan.containers[i];
        printf("container %s %s %s restart=%s halt=%d namespace=%s\n", kinds[at->kind], at->name, at->directory,
               restarts[at->restart], at->halt, namespace_of(at));
        static const char *const checks[] = {"", "test", "http", "tcp"};
        const struct health *health = &at->health;
        if (at->limit)
            printf("  timeout %u\n", at->limit);
        if (health->kind)
            printf("  health %g %g %g %u %s %u %s\n", health->interval, health->timeout, health->start, health->retries,
                   checks[health->kind], health->port, health->path ? health->path : "");
        for (size_t j = 0; j < health->test_count; j++)
            printf("  test [%s]\n", health->test[j]);
        for (size_t j = 0; j < at->step_count; j++) {
            const struct step *step = &at->steps[j];
            if (step->what == STEP_MOUNT)
                printf("  mount [%s] [%s] [%s] %lu [%s]\n", step->type, step->source, step->path, step->flags,
                       step->data);
            else
                printf("  %s [%s]\n", step->what == STEP_MKDIR ? "mkdir" : "cgroup", step->path);
        }
        for (size_t j = 0; j < at->interface_count; j++)
            printf("  interface [%s] [%s] [%s] %d\n", at->interfaces[j].name, at->interfaces[j].add,
                   at->interfaces[j].peer, at->interfaces[j].in_root);
        for (size_t j = 0; j < at->kept_count; j++)
            printf("  bindns %s %s\n", at->kept[j].type, at->kept[j].path);
    }
    for (size_t i = 0; i < plan.refused_count; i++)
        printf("refused %s\n", plan.refused[i]);
    return 0;
}

/* unpacked ROOT: what is missing of an initramfs that was unpacked there. */
static int test_unpacked(char **args)
{
    const char *lost = initramfs_lost(args[0]);
    printf("%s\n", lost ? lost : "whole");
    return 0;
}

/* event EVENT STEP MESSAGE STATUS SIGNAL MS LINE...: the report's line. */
static int test_event(char **args, int count)
{
    char line[EVENT_MAX];
    struct event event = {.event = args[0], .step = args[1], .message = args[2], .status = atoi(args[3]),
                          .signal = atoi(args[4]), .ms = atof(args[5]), .log = (const char *const *)args + 6,
                          .log_count = (size_t)count - 6};
    size_t length = event_line(line, 1.5, &event);
    return fwrite(line, 1, length, stdout) == length ? 0 : 1;
}

/* policy no|on-failure|always STATUS HEALTHY...: the delays, one for each end. */
static int test_policy(char **args, int count)
{
    struct policy policy = {0};
    enum restart restart = !strcmp(args[0], "no") ? RESTART_NO : !strcmp(args[0], "always") ? RESTART_ALWAYS
                                                                                           : RESTART_ON_FAILURE;
    for (int i = 2; i < count; i++)
        printf("%g\n", policy_next(&policy, restart, atoi(args[1]), atof(args[i])));
    return 0;
}

/* tail OUT ERR: the last lines. */
static int test_tail(char **args)
{
    scoped_tail tail;
    tail_read(&tail, args[0], args[1]);
    for (size_t i = 0; i < tail.count; i++)
        printf("%s\n", tail.lines[i]);
    return 0;
}

/* modules FOLDER NAME...: the files that would be loaded, in order; then what happened. */
static int test_modules(char **args, int count)
{
    scoped_modules index;
    if (modules_open(&index, args[0]) < 0)
        return 1;
    index.dry = true;
    for (int i = 1; i < count; i++)
        printf("%s: %s\n", args[i], modules_load(&index, args[i], "") == 0 ? "ok" : strerror(errno));
    return 0;
}

/* spawn PROGRAM ARGUMENT...: its exit status and signal, or why it could not start. */
static int test_spawn(char **args)
{
    int status = spawn_wait(&(struct spawn){.argv = (const char *const *)args});
    if (status < 0)
        printf("error %s\n", strerror(errno));
    else
        printf("%d %d\n", status_code(status), status_signal(status));
    return 0;
}

/* runtime VERB NAME BUNDLE PID_FILE, ctr VERB NAME NAMESPACE: the command lines. */
static int test_args(char **args, bool ctr)
{
    struct container container = {.kind = SERVICE, .name = args[1], .directory = args[2], .namespace = ctr ? args[2] : ""};
    if (ctr) {
        struct command command;
        containerd_args(&command, args[0], &container, "/pid");
        for (size_t i = 0; i < command.argc; i++)
            printf("%s\n", command.argv[i]);
        command_free(&command);
        return 0;
    }
    const char *argv[RUNTIME_ARGS];
    struct runtime runtime = {.path = "/usr/bin/crun"};
    runtime_args(&runtime, args[0], &container, *args[3] ? args[3] : NULL, argv);
    for (size_t i = 0; argv[i]; i++)
        printf("%s\n", argv[i]);
    return 0;
}

/* task VERB NAME NAMESPACE SOCKET PID_FILE SPEC RUNTIME SECONDS: what task_do() returns. */
static int test_task(char **args)
{
    struct container container = {.kind = SERVICE, .name = args[1], .namespace = args[2]};
    struct task_call call = {.verb = args[0], .container = &container, .socket = args[3], .pid_file = args[4],
                             .spec = args[5], .runtime = args[6], .seconds = atoi(args[7])};
    printf("%d\n", task_do(&call));
    return 0;
}

/* stream PATH LIMIT: standard input through a stream of its own into a file. */
static int test_stream(char **args)
{
    struct stream stream;
    stream_of(&stream, dup(0), args[0], (size_t)atol(args[1]), 100);
    while (stream.from >= 0)
        stream_step(&stream, true);
    printf("%llu\n", (unsigned long long)stream.total);
    stream_close(&stream);
    return 0;
}

/* say COUNT: as many lines to a console that may be stopped, then how long that took, to standard output. */
static int test_say(char **args)
{
    double start = now();
    console_open();
    for (int i = 0; i < atoi(args[0]); i++)
        say("line %d of a console that nobody reads, until somebody does", i);
    printf("%.2f\n", now() - start);
    fflush(stdout);
    for (int i = 0; i < 100; i++) {
        console_flush();
        pause_ms(20);
    }
    return 0;
}

/* root CMDLINE: what the boot stage reads in it. */
static int test_root(char **args)
{
    struct root_options found;
    char reason[REASON_MAX];
    int result = root_options_read(&found, args[0], reason);
    if (result < 0) {
        printf("%s\n", reason);
    } else {
        printf("root=%s types=%s flags=%s init=%s %s delay=%g wait=%g\n", found.root, found.types ? found.types : "-",
               found.flags ? found.flags : "-", found.init ? found.init : "-", found.writable ? "rw" : "ro", found.delay,
               found.wait);
        if (found.verified) {
            struct device device = {.major = 254, .minor = 1};
            scoped_free char *table = verity_table(&device, &found.verity);
            printf("%s\n", table);
        }
    }
    root_options_free(&found);
    return result < 0 ? 1 : 0;
}

/* super FILE: what filesystem it says it is. */
static int test_super(char **args)
{
    struct superblock found;
    scoped_fd fd = open(args[0], O_RDONLY);
    if (!superblock_read(&found, fd))
        return 1;
    printf("%s [%s] [%s]\n", found.type, found.label, found.uuid);
    return 0;
}

/* parts FILE SECTOR: the MBR's signature, then a GPT's partitions. */
static int test_parts(char **args)
{
    scoped_fd fd = open(args[0], O_RDONLY);
    struct partition *found;
    size_t count = partitions_read(&found, fd, (unsigned)atoi(args[1]), (uint64_t)lseek(fd, 0, SEEK_END));
    printf("%08x\n", mbr_signature(fd));
    for (size_t i = 0; i < count; i++)
        printf("%u %llu %s [%s]\n", found[i].number, (unsigned long long)found[i].first, found[i].uuid, found[i].label);
    free(found);
    return 0;
}

/* find SYS DEV SPEC: the device; without one, all that there are. */
static int test_find(char **args)
{
    const struct places places = {args[0], args[1]};
    struct device found;
    if (!spec_known(args[2]))
        return 2;
    char reason[REASON_MAX];
    int there = device_find(&found, &places, args[2], reason);
    if (there < 0) {
        printf("%s\n", reason);
        return 3;
    }
    if (there) {
        printf("%s %u:%u %llu\n", found.path, found.major, found.minor, (unsigned long long)found.size);
        return 0;
    }
    size_t count;
    char **lines = devices_describe(&places, &count);
    for (size_t i = 0; i < count; i++)
        printf("%s\n", lines[i]);
    free_names(lines, count);
    return 1;
}

/* interface NAME TYPE PEER: what comes of it, in a namespace that there is not. */
static int test_interface(char **args)
{
    char error[ERROR_MAX] = "";
    struct interface wanted = {.name = args[0], .add = args[1], .peer = args[2], .in_root = false};
    int result = net_interface(&wanted, 0x7FFFFFFF, error);
    printf("%d %s\n", result, error);
    return 0;
}

/* copy FROM TO move|keep */
static int test_copy(char **args)
{
    scoped_fd from = open(args[0], O_RDONLY | O_DIRECTORY), to = open(args[1], O_RDONLY | O_DIRECTORY);
    return copy_tree(from, to, !strcmp(args[2], "move"), 0) < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    char **args = argv + 2;
    int count = argc - 2;
    if (!strcmp(word, "plan") && count == 1)
        return test_plan(args);
    if (!strcmp(word, "unpacked") && count == 1)
        return test_unpacked(args);
    if (!strcmp(word, "event") && count >= 6)
        return test_event(args, count);
    if (!strcmp(word, "policy") && count >= 3)
        return test_policy(args, count);
    if (!strcmp(word, "tail") && count == 2)
        return test_tail(args);
    if (!strcmp(word, "modules") && count >= 2)
        return test_modules(args, count);
    if (!strcmp(word, "spawn") && count >= 1)
        return test_spawn(args);
    if ((!strcmp(word, "runtime") && count == 4) || (!strcmp(word, "ctr") && count == 3))
        return test_args(args, word[0] == 'c');
    if (!strcmp(word, "task") && count == 8)
        return test_task(args);
    if (!strcmp(word, "alias") && count == 2)
        return alias_matches(args[0], args[1]) ? 0 : 1;
    if (!strcmp(word, "cmdline") && count == 2) {
        scoped_free char *value = cmdline_value(args[0], args[1]);
        printf("%d [%s]\n", cmdline_has(args[0], args[1]), value ? value : "-");
        return 0;
    }
    if (!strcmp(word, "stream") && count == 2)
        return test_stream(args);
    if (!strcmp(word, "show") && count == 2) {
        log_show(args[0], strtoull(args[1], NULL, 10));
        return 0;
    }
    if (!strcmp(word, "say") && count == 1)
        return test_say(args);
    if (!strcmp(word, "start") && count == 1) {
        printf("%llu\n", (unsigned long long)started_at(atoi(args[0])));
        return 0;
    }
    if (!strcmp(word, "end") && count == 2) {
        printf("%d\n", containerd_end_status(args[0], atoi(args[1])));
        return 0;
    }
    if (!strcmp(word, "root") && count == 1)
        return test_root(args);
    if (!strcmp(word, "super") && count == 1)
        return test_super(args);
    if (!strcmp(word, "parts") && count == 2)
        return test_parts(args);
    if (!strcmp(word, "find") && count == 3)
        return test_find(args);
    if (!strcmp(word, "interface") && count == 3)
        return test_interface(args);
    if (!strcmp(word, "copy") && count == 3)
        return test_copy(args);
    if (!strcmp(word, "helper") && count == 1)
        return helper_allowed(args[0]) ? 0 : 1;
    if (!strcmp(word, "ending"))
        return anyone_ending() ? 0 : 1;
    fprintf(stderr, "test-guest: bad arguments\n");
    return 2;
}

/* /usr/bin/service, by the name of its link or by a word: volumes, onboot, onshutdown, system-init, services,
 * start, stop, restart, status. */
#include "applets.h"
#include "console.h"
#include "event.h"
#include "service.h"
#include "stream.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char usage[] = "usage: service [-q] [-v] start|stop|restart NAME\n"
                            "       service status|volumes|onboot|onshutdown|system-init|services\n";

/* Without a plan there is nothing to do, which is right only when the image holds no containers either. */
static int without_plan(const char *word, const char *error)
{
    scoped_free char *folder = format("/containers/%s", strcmp(word, "system-init") ? word : "services");
    size_t count = 0;
    char **names = list_names(folder, &count);
    if (names)
        free_names(names, count);
    if (!*error && !count)
        return 0;
    scoped_free char *message = *error ? format(PLAN_FILE ": %s", error)
                                       : format("%s has %zu entries but there is no " PLAN_FILE
                                                "; build the image with linuxkit's own builder", folder, count);
    say("%s", message);
    report(&(struct event){.event = "fail", .step = "plan", .message = message});
    return 1;
}

/* Entries of the plan that are left out: said once, by whoever reads it first. */
static void tell_refused(const struct plan *plan)
{
    if (!plan->refused_count || make_dirs("/run/linuxkit", 0755) < 0)
        return;
    scoped_fd once = open("/run/linuxkit/refused", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    for (size_t i = 0; once >= 0 && i < plan->refused_count; i++) {
        scoped_free char *message = format(PLAN_FILE ": %s", plan->refused[i]);
        say("%s", message);
        report(&(struct event){.event = "fail", .step = "plan", .message = message});
    }
}

/* /etc/issue on every console of the kernel's command line. */
static int show_issue(void)
{
    size_t length;
    scoped_free char *issue = read_file("/etc/issue", 1 << 16, &length), *cmdline = read_line("/proc/cmdline");
    char *save;
    for (char *word = issue && cmdline ? strtok_r(cmdline, " ", &save) : NULL; word; word = strtok_r(NULL, " ", &save)) {
        if (!starts_with(word, "console="))
            continue;
        word[strcspn(word, ",")] = 0;
        scoped_free char *path = format("/dev/%s", word + strlen("console="));
        struct stat info;
        scoped_fd tty = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
        if (tty >= 0 && fstat(tty, &info) == 0 && S_ISCHR(info.st_mode))
            write_all(tty, issue, length);
    }
    return 0;
}

static int run_word(const char *word)
{
    scoped_plan plan;
    char error[ERROR_MAX];
    if (plan_read(&plan, PLAN_FILE, error, sizeof(error)) < 0)
        return without_plan(word, error);
    tell_refused(&plan);
    if (strcmp(word, "volumes") == 0)
        return prepare_volumes(&plan) ? 1 : 0;
    if (strcmp(word, "onboot") == 0)
        return run_containers(&plan, ONBOOT);
    if (strcmp(word, "onshutdown") == 0)
        return run_containers(&plan, ONSHUTDOWN);
    return supervise(&plan, strcmp(word, "system-init") == 0);
}

static int run_hook(const char *name)
{
    scoped_plan plan;
    char error[ERROR_MAX];
    if (plan_read(&plan, PLAN_FILE, error, sizeof(error)) < 0) {
        fprintf(stderr, "%s: %s\n", PLAN_FILE, *error ? error : "not there");
        return 1;
    }
    return hook_main(&plan, name);
}

int service_main(int argc, char **argv)
{
    static const struct {
        const char *part, *word;
    } links[] = {{"volumes", "volumes"}, {"onboot", "onboot"}, {"onshutdown", "onshutdown"},
                 {"containerd", "system-init"}, {"services", "services"}};
    const char *name = argc > 0 ? base_name(argv[0]) : "service";
    umask(022);
    console_open();
    if (argc == 1) {
        if (strstr(name, "issue"))
            return show_issue();
        for (size_t i = 0; i < COUNT(links); i++)
            if (strstr(name, links[i].part))
                return run_word(links[i].word);
    }
    int at = 1;
    while (at < argc && argv[at][0] == '-')
        at++;
    const char *word = at < argc ? argv[at] : "", *object = at + 1 < argc ? argv[at + 1] : NULL;
    if (strcmp(word, "logger") == 0 && object)
        return logger_main(object);
    if (strcmp(word, "prepare") == 0 && object)
        return run_hook(object);
    if (object && (!strcmp(word, "start") || !strcmp(word, "stop") || !strcmp(word, "restart")))
        return control_ask(word, object);
    if (strcmp(word, "status") == 0)
        return control_ask(word, "");
    for (size_t i = 0; i < COUNT(links); i++)
        if (strcmp(word, links[i].word) == 0)
            return run_word(word);
    fputs(usage, stderr);
    return 2;
}

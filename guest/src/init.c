/* PID 1: prepares the machine, runs /etc/init.d, then reaps and waits for a reason to stop. */
#include "applets.h"
#include "console.h"
#include "event.h"
#include "loop.h"
#include "setup.h"
#include "shutdown.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Standard input, output and error are the console, whatever the kernel could open at first. */
static void open_console(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0) {
            int got = open("/dev/console", O_RDWR | O_NOCTTY);
            if (got < 0)
                got = open("/dev/null", O_RDWR);
            if (got > fd) {
                dup2(got, fd);
                close(got);
            }
        }
}

static void timed(struct loop *loop, const char *step, double start, const char *message)
{
    loop_report(loop, &(struct event){.event = "done", .step = step, .ms = (now() - start) * 1e3, .message = message});
}

/* The boot fails with that reason, and nothing of init.d is run. */
static void stop_here(struct loop *loop, const char *step, const char *reason)
{
    loop_report(loop, &(struct event){.event = "fail", .step = step, .message = reason});
    if (make_parents(HALT_FILE) < 0 || write_file(HALT_FILE, reason) < 0)
        say("%s: %s", HALT_FILE, strerror(errno));
}

static void prepare_machine(struct loop *loop)
{
    double start = now();
    const char *lost = initramfs_lost("");
    root_move();
    mount_early();
    open_console();
    console_open();
    mount_cgroups();
    make_var();
    mount_kept("/var/log", MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_RELATIME, "size=10%,mode=755"); /* no log fills /var */
    make_device_links();
    set_helpers();
    share_mounts();
    loop_open(loop);
    timed(loop, "mounts", start, NULL);
    if (lost)
        stop_here(loop, "initramfs", lost);
    start = now();
    scoped_free char *message = format("%u loaded", coldplug());
    link_ports();
    loop_open_devices(loop);
    timed(loop, "modules", start, message);
    start = now();
    set_clock();
    loopback_up();
    timed(loop, "network", start, NULL);
}

/* Runs one file of init.d. False: stop here, someone wants the machine to stop or a container said halt. */
static bool run_script(struct loop *loop, const char *name)
{
    scoped_free char *path = format("/etc/init.d/%s", name);
    scoped_free char *step = format("init.d/%s", name);
    struct stat info;
    if (stat(path, &info) < 0 || !S_ISREG(info.st_mode))
        return true;
    const char *argv[] = {path, NULL};
    double start = now();
    pid_t pid = spawn(&(struct spawn){.argv = argv});
    if (pid < 0) {
        say("%s: %s", path, strerror(errno));
        loop_report(loop, &(struct event){.event = "fail", .step = step, .status = 127, .message = strerror(errno)});
        return true;
    }
    int status = loop_wait(loop, pid);
    if (loop->wish != STAY)
        return false;
    loop_report(loop, &(struct event){.event = status ? "fail" : "done", .step = step, .ended = true,
                                      .status = status_code(status), .signal = status_signal(status),
                                      .ms = (now() - start) * 1e3});
    return !exists(HALT_FILE);
}

static void run_scripts(struct loop *loop)
{
    size_t count;
    char **names = list_names("/etc/init.d", &count);
    for (size_t i = 0; i < count && !exists(HALT_FILE); i++)
        if (!run_script(loop, names[i]))
            break;
    if (names)
        free_names(names, count);
}

static void report_boot(struct loop *loop, double start)
{
    scoped_free char *reason = read_line(HALT_FILE);
    scoped_free char *message = reason ? format("stopped: %s", reason)
                                : loop->failures
                                    ? format("%u failed, first %s", loop->failures, loop->first_failure)
                                    : must_dup("");
    loop_report(loop, &(struct event){.event = "booted", .step = "boot", .ok = loop->failures || reason ? NO : YES,
                                      .ms = (now() - start) * 1e3, .message = message});
    if (!reason)
        return;
    say("the boot stops here: %s", reason);
    scoped_free char *then = booted_value("linuxkit.onfail");
    if (then && strcmp(then, "poweroff") == 0)
        loop->wish = POWEROFF;
    else if (then && strcmp(then, "reboot") == 0)
        loop->wish = REBOOT;
}

static int serve(struct loop *loop, bool machine)
{
    double start = now();
    set_limits();
    if (machine)
        set_hostname();
    make_resolv_target();
    run_scripts(loop);
    if (loop->wish == STAY)
        report_boot(loop, start);
    while (loop->wish == STAY)
        loop_step(loop, -1);
    shut_down(loop, loop->wish, machine);
    return 0;
}

int init_main(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct loop loop;
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    /* With /proc there already we are a container's first process: the machine is someone else's. */
    bool machine = !exists("/proc/self");
    umask(022);
    if (machine) {
        reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del comes to us as SIGINT */
        prepare_machine(&loop);
    } else {
        if (getpid() != 1)
            prctl(PR_SET_CHILD_SUBREAPER, 1);
        console_open();
        make_dirs("/run/linuxkit", 0755);
        make_var();
        loop_open(&loop);
    }
    return serve(&loop, machine);
}

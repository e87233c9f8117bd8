/* Starting a program with exactly three descriptors, and its errors before it runs. */
#define _GNU_SOURCE
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static _Noreturn void child(const struct spawn *what, int failed)
{
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < 32; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (!what->keep_session)
        setsid();
    int in = open("/dev/null", O_RDONLY);
    if (in > STDIN_FILENO) {
        dup2(in, STDIN_FILENO);
        close(in);
    }
    /* First move both out of the way: either may be 1 or 2 already. */
    int out = what->out ? fcntl(*what->out, F_DUPFD_CLOEXEC, 3) : -1;
    int err = what->err ? fcntl(*what->err, F_DUPFD_CLOEXEC, 3) : -1;
    if ((out < 0 || dup2(out, STDOUT_FILENO) >= 0) && (err < 0 || dup2(err, STDERR_FILENO) >= 0) &&
        (!what->directory || chdir(what->directory) == 0)) {
        int status = -1;
        if (what->first) {
            close(failed); /* the parent goes on */
            status = what->first(what->with);
        }
        if (status >= 0)
            _exit(status);
        execv(what->argv[0], (char *const *)what->argv);
    }
    int error = errno;
    (void)!write(failed, &error, sizeof(error));
    _exit(127);
}

pid_t spawn(const struct spawn *what)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        child(what, ends[1]);
    int error = errno;
    close(ends[1]);
    if (pid > 0) {
        /* The pipe closes by itself when the program starts; else it brings the error. */
        int reported = 0;
        ssize_t got;
        while ((got = read(ends[0], &reported, sizeof(reported))) < 0 && errno == EINTR)
            ;
        if (got == sizeof(reported)) {
            wait_for(pid);
            pid = -1;
            error = reported;
        }
    }
    close(ends[0]);
    errno = error;
    return pid;
}

int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

int spawn_wait(const struct spawn *what)
{
    pid_t pid = spawn(what);
    return pid < 0 ? -1 : wait_for(pid);
}

int status_signal(int wait_status)
{
    return WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
}

int status_code(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* host-timesync-daemon: sets the system's clock from the hardware's whenever the host connects, as when it wakes up. */
#define _GNU_SOURCE
#include "ending.h"
#include "command.h"
#include "util.h"
#include "vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <linux/vm_sockets.h>

static int set_clock(const char *path)
{
    struct rtc_time rtc;
    scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RTC_RD_TIME, &rtc) < 0)
        return -1;
    struct tm parts = {.tm_sec = rtc.tm_sec, .tm_min = rtc.tm_min, .tm_hour = rtc.tm_hour,
                       .tm_mday = rtc.tm_mday, .tm_mon = rtc.tm_mon, .tm_year = rtc.tm_year};
    struct timeval value = {.tv_sec = timegm(&parts)};
    return settimeofday(&value, NULL);
}

int main(int argc, char **argv)
{
    long cid = VMADDR_CID_ANY, port = 0;
    const char *rtc = "/dev/rtc0";
    const struct flag flags[] = {
        {.names = "cid", .number = &cid, .help = "address to listen at (any)"},
        {.names = "port", .number = &port, .help = "vsock port to listen at"},
        {.names = "rtc", .text = &rtc, .help = "the hardware's clock (/dev/rtc0)"},
    };
    program_is("host-timesync-daemon", "host-timesync-daemon [-cid CID] -port PORT [-rtc PATH]");
    command_none(flags, COUNT(flags), argc, argv);
    if (port < 1 || port >= UINT32_MAX)
        usage("-port is needed, 1 to 4294967294");
    scoped_fd listener = vsock_listen((unsigned)cid, (unsigned)port);
    if (listener < 0) {
        fprintf(stderr, "host-timesync-daemon: vsock port %ld: %s\n", port, strerror(errno));
        return 1;
    }
    end_by_signals();
    for (;;) {
        scoped_fd client = vsock_accept(listener, "host-timesync-daemon");
        if (client < 0) {
            if (errno != EINTR && errno != ECONNABORTED && errno != EPERM)
                pause_ms(100);
        } else if (set_clock(rtc) < 0) {
            fprintf(stderr, "host-timesync-daemon: %s: %s\n", rtc, strerror(errno));
        } else {
            fputs("host-timesync-daemon: the clock is set\n", stderr);
        }
    }
}

/* PID 1 of the test guest: does what `testguest=WORD` on the kernel command line says, and reports as a real one.
 *
 *   ok       reports two steps and booted, then serves "hello" on the console and waits for poweroff
 *   fail     the same with a step that fails and ok = false
 *   silent   never reports booted
 *   panic    reports a step and exits, so that the kernel panics
 *   off      reports booted and powers off by itself
 *   noise    writes garbage between its reports
 *   dying    boots, and then its service ends three times and is to start again
 *   deaf     boots, and ignores every request to power off
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int report = -1;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void say(const char *format, ...)
{
	char line[1024];
	int n = snprintf(line, sizeof line, "{\"t\": %.6f, ", now());
	va_list args;
	va_start(args, format);
	n += vsnprintf(line + n, sizeof line - (size_t)n, format, args);
	va_end(args);
	line[n++] = '\n';
	if (report >= 0 && write(report, line, (size_t)n) != n)
		perror("report");
}

static void open_report(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *e;
	while (ports && (e = readdir(ports))) {
		char path[600], name[64] = "";
		snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", e->d_name);
		FILE *f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(name, sizeof name, f) && !strcmp(name, "org.linuxkit.report\n")) {
			snprintf(path, sizeof path, "/dev/%s", e->d_name);
			report = open(path, O_RDWR | O_CLOEXEC);
		}
		fclose(f);
	}
	if (ports)
		closedir(ports);
}

static void stop(int how)
{
	say("\"event\": \"off\", \"step\": \"shutdown\"}");
	sync();
	usleep(20000);
	reboot(how);
	pause();
}

static void wait_for_orders(int deaf)
{
	struct pollfd fds[2] = {{.fd = report, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	char buffer[256];
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents & POLLIN) {
			ssize_t n = read(report, buffer, sizeof buffer - 1);
			buffer[n > 0 ? n : 0] = 0;
			if (strstr(buffer, "poweroff\n") && !deaf) {
				say("\"event\": \"start\", \"step\": \"shutdown\"}");
				stop(RB_POWER_OFF);
			} else if (strstr(buffer, "reboot\n") && !deaf) {
				stop(RB_AUTOBOOT);
			}
		}
		if (fds[1].revents & POLLIN) {
			ssize_t n = read(0, buffer, sizeof buffer - 1);
			buffer[n > 0 ? n : 0] = 0;
			if (n > 0)
				printf("heard: %s", buffer);
			if (strstr(buffer, "bye"))
				stop(RB_POWER_OFF);
			if (strstr(buffer, "again"))
				stop(RB_AUTOBOOT);
		}
		if (fds[0].revents & POLLHUP)
			usleep(100000);
	}
}

int main(void)
{
	char cmdline[4096] = "", word[32] = "ok";
	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	FILE *f = fopen("/proc/cmdline", "re");
	if (f && fgets(cmdline, sizeof cmdline, f)) {
		char *at = strstr(cmdline, "testguest=");
		if (at)
			sscanf(at, "testguest=%31[a-z]", word);
	}
	if (f)
		fclose(f);
	open_report();
	printf("test guest: %s\n", word);

	say("\"event\": \"start\", \"step\": \"mounts\"}");
	say("\"event\": \"done\", \"step\": \"mounts\", \"ms\": 1.5}");
	if (!strcmp(word, "panic"))
		return 3;
	if (!strcmp(word, "silent"))
		wait_for_orders(0);
	if (!strcmp(word, "noise") && write(report, "\xff\xfe{{{\n[1,2]\n{\"t\": \"x\"}\n\n", 24) < 0)
		perror("report");
	int failed = !strcmp(word, "fail");
	say("\"event\": \"start\", \"step\": \"onboot/000-first\"}");
	if (failed)
		say("\"event\": \"fail\", \"step\": \"onboot/000-first\", \"status\": 127, \"ms\": 3.0, "
		    "\"message\": \"exit status 127\", \"log\": [\"/bin/first: no such file or directory\"]}");
	else
		say("\"event\": \"done\", \"step\": \"onboot/000-first\", \"status\": 0, \"ms\": 3.0}");
	say("\"event\": \"start\", \"step\": \"service/web\"}");
	say("\"event\": \"booted\", \"step\": \"boot\", \"ok\": %s}", failed ? "false" : "true");
	printf("hello\n");
	if (!strcmp(word, "off") || !strcmp(word, "reboot"))
		stop(RB_POWER_OFF);
	for (int i = 0; i < 3 && !strcmp(word, "dying"); i++) {
		usleep(300000);
		say("\"event\": \"ready\", \"step\": \"service/web\"}");
		usleep(100000);
		say("\"event\": \"exit\", \"step\": \"service/web\", \"status\": 3, \"log\": [\"bind: address in use\"]}");
		say("\"event\": \"restart\", \"step\": \"service/web\"}");
	}
	wait_for_orders(!strcmp(word, "deaf"));
	return 0;
}

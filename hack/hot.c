/* Prints the functions of PROGRAM that a command executes, by single steps:
 *
 *     hot PROGRAM SYMBOLS COMMAND...
 *
 * SYMBOLS is what `nm -S --defined-only PROGRAM` prints. Children are followed until they become another program. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct symbol { unsigned long at, size; char type, name[4096]; };

static unsigned char *hit;
static unsigned long low = -1UL, high;

/* Whether the process executes a file of that name; ours may be seen in an overlay. */
static int is_ours(pid_t pid, const char *name)
{
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/%d/exe", pid);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return !strcmp(basename(path), name);
}

static int next(FILE *symbols, struct symbol *s)
{
	char line[8192];
	while (fgets(line, sizeof line, symbols))
		if (sscanf(line, "%lx %lx %c %4095s", &s->at, &s->size, &s->type, s->name) == 4 && strchr("tTwW", s->type))
			return 1;
	return 0;
}

/* Returns the exit status of the command. What it leaves behind, as the init of a container, ends with us. */
static int step(pid_t first, const char *name)
{
	int status;
	waitpid(first, &status, 0);
	ptrace(PTRACE_SETOPTIONS, first, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
	ptrace(PTRACE_SINGLESTEP, first, 0, 0);
	for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (pid == first)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			continue;
		}
		int signal = WSTOPSIG(status), event = status >> 16;
		if (event == PTRACE_EVENT_EXEC && !is_ours(pid, name)) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			continue;
		}
		struct user_regs_struct registers;
		if (!ptrace(PTRACE_GETREGS, pid, 0, &registers) && registers.rip >= low && registers.rip < high)
			hit[registers.rip - low] = 1;
		int pass = event || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
		ptrace(PTRACE_SINGLESTEP, pid, 0, pass);
	}
	return 1;
}

int main(int argc, char **argv)
{
	FILE *symbols = argc > 3 ? fopen(argv[2], "r") : NULL;
	if (!symbols) {
		fprintf(stderr, "usage: hot PROGRAM SYMBOLS COMMAND...\n");
		return 2;
	}
	static struct symbol s;
	while (next(symbols, &s)) {
		low = s.at < low ? s.at : low;
		high = s.at + s.size > high ? s.at + s.size : high;
	}
	hit = calloc(1, high - low);
	pid_t pid = fork();
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		int null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(null, 1);
		execv(argv[3], argv + 3);
		_exit(127);
	}
	int result = step(pid, basename(argv[1]));
	rewind(symbols);
	while (next(symbols, &s))
		if (memchr(hit + (s.at - low), 1, s.size))
			puts(s.name);
	return result;
}

# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vessel_global_optspecs
    string join \n debug log= log-format= root= systemd-cgroup cgroup-manager= rootless= timings= v/version
end

function __fish_vessel_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vessel_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vessel_using_subcommand
    set -l cmd (__fish_vessel_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vessel -n "__fish_vessel_needs_command" -l log -d 'append messages to FILE, or send them to journald:NAME or syslog:NAME (default: standard error)' -r
complete -c vessel -n "__fish_vessel_needs_command" -l log-format -d 'text (default) or json' -r
complete -c vessel -n "__fish_vessel_needs_command" -l root -d 'where the state of containers is kept, best on a tmpfs (default: /run/vessel)' -r
complete -c vessel -n "__fish_vessel_needs_command" -l cgroup-manager -d 'who makes the cgroups: cgroupfs (default), systemd or disabled' -r
complete -c vessel -n "__fish_vessel_needs_command" -l rootless -d 'pass over missing rights on cgroups: true, false or auto (default)' -r
complete -c vessel -n "__fish_vessel_needs_command" -l timings -d 'append how long each phase takes to FILE, as a trace where it ends in .json' -r
complete -c vessel -n "__fish_vessel_needs_command" -l debug -d 'log what is done, too'
complete -c vessel -n "__fish_vessel_needs_command" -l systemd-cgroup -d 'let systemd make the cgroups; cgroupsPath is slice:prefix:name then'
complete -c vessel -n "__fish_vessel_needs_command" -s v -l version -d 'print the version of vessel and of the specification'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "check" -d 'report every fault of a bundle'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "checkpoint" -d 'checkpoint a running container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "completion" -d 'print the completion of the command line for a shell'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "create" -d 'create a container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "delete" -d 'delete a container that is stopped, and what it held'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "events" -d 'display container events such as OOM notifications, cpu, memory, and IO usage statistics'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "exec" -d 'execute another process in a running container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "features" -d 'show what vessel can do, as JSON'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "kill" -d 'send a signal (default: SIGTERM) to the container\'s init process'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "list" -d 'list the containers under --root'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "mounts" -d 'add mounts to a running container, or remove them'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "pause" -d 'suspend all processes of a container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "ps" -d 'show the processes of a container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "restore" -d 'restore a container from a previous checkpoint'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "resume" -d 'let the processes of a paused container go on'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "run" -d 'create and run a container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "spec" -d 'write a config.json to begin with'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "start" -d 'execute the program of a created container'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "state" -d 'output the state of a container as JSON'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "update" -d 'update container resource constraints'
complete -c vessel -n "__fish_vessel_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vessel -n "__fish_vessel_using_subcommand check" -s b -l bundle -d 'the bundle, a directory with a config.json (default: the current directory)' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l image-path -d 'the directory of the images (default: ./checkpoint)' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l work-path -d 'the directory for logs (default: that of the images)' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l manage-cgroups-mode -d 'what is done about cgroups: soft (default), full, strict or ignore' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l empty-ns -d 'do not save what is in the namespace: network, which is always so' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l parent-path -d 'the images of a pre-dump, relative to --image-path' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l status-fd -d 'write a zero byte to descriptor N when pages can be fetched (--lazy-pages)' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l page-server -d 'send the memory there in place of files' -r
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l tcp-established -d 'allow open TCP connections'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l ext-unix-sk -d 'allow UNIX sockets that are connected to the outside'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l shell-job -d 'allow a terminal of the caller\'s'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l lazy-pages -d 'fetch memory when it is used'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l file-locks -d 'allow locks of files'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l auto-dedup -d 'keep no page in two images'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l leave-running -d 'let the container run on'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l tcp-skip-in-flight -d 'leave out TCP connections that are not established yet'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l link-remap -d 'give open files without a name a name for the time being'
complete -c vessel -n "__fish_vessel_using_subcommand checkpoint" -l pre-dump -d 'save the memory alone, and let the container run on'
complete -c vessel -n "__fish_vessel_using_subcommand create" -s b -l bundle -d 'the bundle, a directory with a config.json (default: the current directory)' -r
complete -c vessel -n "__fish_vessel_using_subcommand create" -s f -l config -d 'the configuration; from the bundle where relative (default: config.json)' -r
complete -c vessel -n "__fish_vessel_using_subcommand create" -l pid-file -d 'write the pid of the process, as seen from here, to FILE' -r
complete -c vessel -n "__fish_vessel_using_subcommand create" -l console-socket -d 'a UNIX socket that receives the master of the terminal' -r
complete -c vessel -n "__fish_vessel_using_subcommand create" -l pidfd-socket -d 'a UNIX socket that receives a pidfd of the process' -r
complete -c vessel -n "__fish_vessel_using_subcommand create" -l preserve-fds -d 'hand over N descriptors more than the standard streams and $LISTEN_FDS' -r
complete -c vessel -n "__fish_vessel_using_subcommand create" -l no-pivot -d 'move the root into place in place of pivot_root (for a root on a ramdisk)'
complete -c vessel -n "__fish_vessel_using_subcommand create" -l no-new-keyring -d 'keep the caller\'s session keyring'
complete -c vessel -n "__fish_vessel_using_subcommand delete" -s f -l force -d 'end the container if it still runs; one that is not there is no error'
complete -c vessel -n "__fish_vessel_using_subcommand delete" -s r -l regex -d 'the argument is a regular expression: do it to each container whose id matches'
complete -c vessel -n "__fish_vessel_using_subcommand events" -l interval -d 'the time between statistics, as 100ms or 1m30s' -r
complete -c vessel -n "__fish_vessel_using_subcommand events" -l stats -d 'display the statistics of now, and end'
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l cwd -d 'the working directory in the container' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s e -l env -d 'add to the environment' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s u -l user -d 'the user, by numbers' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s g -l additional-gids -d 'a further group, by number' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s p -l process -d 'the whole process, as `process` in config.json' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l pid-file -d 'write the pid of the process, as seen from here, to FILE' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l process-label -d 'the SELinux label' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l apparmor -d 'the AppArmor profile' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s c -l cap -d 'add a capability' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l cgroup -d 'a cgroup below the container\'s, which is there' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l console-socket -d 'a UNIX socket that receives the master of the terminal' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l pidfd-socket -d 'a UNIX socket that receives a pidfd of the process' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l preserve-fds -d 'hand over N descriptors more than the standard streams and $LISTEN_FDS' -r
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s t -l tty -d 'make a terminal'
complete -c vessel -n "__fish_vessel_using_subcommand exec" -s d -l detach -d 'return as soon as the program runs'
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l no-new-privs -d 'forbid more privileges by execve'
complete -c vessel -n "__fish_vessel_using_subcommand exec" -l ignore-paused -d 'enter a paused container too'
complete -c vessel -n "__fish_vessel_using_subcommand kill" -s a -l all -d 'send it to every process of the container'
complete -c vessel -n "__fish_vessel_using_subcommand kill" -s r -l regex -d 'the argument is a regular expression: do it to each container whose id matches'
complete -c vessel -n "__fish_vessel_using_subcommand list" -s f -l format -d 'table or json' -r
complete -c vessel -n "__fish_vessel_using_subcommand list" -s q -l quiet -d 'print only the ids'
complete -c vessel -n "__fish_vessel_using_subcommand ps" -s f -l format -d 'table or json' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l image-path -d 'the directory of the images (default: ./checkpoint)' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l work-path -d 'the directory for logs (default: that of the images)' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l manage-cgroups-mode -d 'what is done about cgroups: soft (default), full, strict or ignore' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l empty-ns -d 'do not save what is in the namespace: network, which is always so' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -s b -l bundle -d 'the bundle, a directory with a config.json (default: the current directory)' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l pid-file -d 'write the pid of the process, as seen from here, to FILE' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l console-socket -d 'a UNIX socket that receives the master of the terminal' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l lsm-profile -d 'the label or profile of the processes, as selinux:LABEL' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l lsm-mount-context -d 'the SELinux context of mounts' -r
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l tcp-established -d 'allow open TCP connections'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l ext-unix-sk -d 'allow UNIX sockets that are connected to the outside'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l shell-job -d 'allow a terminal of the caller\'s'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l lazy-pages -d 'fetch memory when it is used'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l file-locks -d 'allow locks of files'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l auto-dedup -d 'keep no page in two images'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -s d -l detach -d 'return as soon as the container runs'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l no-subreaper -d 'do not adopt orphans of the container'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l no-pivot -d 'for callers that give it to every command: how the root is moved is criu\'s choice'
complete -c vessel -n "__fish_vessel_using_subcommand restore" -l tcp-close -d 'close TCP connections that were open'
complete -c vessel -n "__fish_vessel_using_subcommand run" -s b -l bundle -d 'the bundle, a directory with a config.json (default: the current directory)' -r
complete -c vessel -n "__fish_vessel_using_subcommand run" -s f -l config -d 'the configuration; from the bundle where relative (default: config.json)' -r
complete -c vessel -n "__fish_vessel_using_subcommand run" -l pid-file -d 'write the pid of the process, as seen from here, to FILE' -r
complete -c vessel -n "__fish_vessel_using_subcommand run" -l console-socket -d 'a UNIX socket that receives the master of the terminal' -r
complete -c vessel -n "__fish_vessel_using_subcommand run" -l pidfd-socket -d 'a UNIX socket that receives a pidfd of the process' -r
complete -c vessel -n "__fish_vessel_using_subcommand run" -l preserve-fds -d 'hand over N descriptors more than the standard streams and $LISTEN_FDS' -r
complete -c vessel -n "__fish_vessel_using_subcommand run" -l no-pivot -d 'move the root into place in place of pivot_root (for a root on a ramdisk)'
complete -c vessel -n "__fish_vessel_using_subcommand run" -l no-new-keyring -d 'keep the caller\'s session keyring'
complete -c vessel -n "__fish_vessel_using_subcommand run" -s d -l detach -d 'return as soon as the program runs'
complete -c vessel -n "__fish_vessel_using_subcommand run" -l keep -d 'do not delete the container when its program ends'
complete -c vessel -n "__fish_vessel_using_subcommand run" -l no-subreaper -d 'do not adopt orphans of the container'
complete -c vessel -n "__fish_vessel_using_subcommand spec" -s b -l bundle -d 'the bundle, a directory with a config.json (default: the current directory)' -r
complete -c vessel -n "__fish_vessel_using_subcommand spec" -l rootless -d 'for a container of an ordinary user: your own ids become root\'s'
complete -c vessel -n "__fish_vessel_using_subcommand update" -s r -l resources -d 'a JSON file with linux.resources, or - for standard input; the other flags are ignored then' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l blkio-weight -d 'weight of its input and output, 10 to 1000' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-period -d 'the period of the CPU quota, in microseconds; 0: as it is' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-quota -d 'CPU time in a period, in microseconds; -1: no limit' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-burst -d 'unused CPU time that adds to the quota, in microseconds' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-share -d 'CPU time in relation to other containers, 2 to 262144' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-rt-period -d 'period of real-time processes, in microseconds (v1)' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-rt-runtime -d 'CPU time of real-time processes in a period (v1)' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpuset-cpus -d 'processors, as 0-3,7' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpuset-mems -d 'memory nodes, as 0,1' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l cpu-idle -d '1: only run when nothing else wants to; 0: not so' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l memory -d 'memory in bytes, or as 512M; -1: no limit' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l memory-reservation -d 'memory that is spared while others can give' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l memory-swap -d 'memory and swap together; -1: no limit of swap' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l kernel-memory -d '' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l kernel-memory-tcp -d '' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l pids-limit -d 'how many processes and threads it may have; -1: no limit' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l l3-cache-schema -d 'a line of schemata (resctrl) for the cache, as L3:0=7f' -r
complete -c vessel -n "__fish_vessel_using_subcommand update" -l mem-bw-schema -d 'a line of schemata for memory bandwidth, as MB:0=20' -r
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "check" -d 'report every fault of a bundle'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "checkpoint" -d 'checkpoint a running container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "completion" -d 'print the completion of the command line for a shell'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "create" -d 'create a container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "delete" -d 'delete a container that is stopped, and what it held'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "events" -d 'display container events such as OOM notifications, cpu, memory, and IO usage statistics'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "exec" -d 'execute another process in a running container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "features" -d 'show what vessel can do, as JSON'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "kill" -d 'send a signal (default: SIGTERM) to the container\'s init process'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "list" -d 'list the containers under --root'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "mounts" -d 'add mounts to a running container, or remove them'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "pause" -d 'suspend all processes of a container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "ps" -d 'show the processes of a container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "restore" -d 'restore a container from a previous checkpoint'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "resume" -d 'let the processes of a paused container go on'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "run" -d 'create and run a container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "spec" -d 'write a config.json to begin with'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "start" -d 'execute the program of a created container'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "state" -d 'output the state of a container as JSON'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "update" -d 'update container resource constraints'
complete -c vessel -n "__fish_vessel_using_subcommand help; and not __fish_seen_subcommand_from check checkpoint completion create delete events exec features kill list mounts pause ps restore resume run spec start state update help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

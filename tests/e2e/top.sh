#!/usr/bin/env bash
# `nodegauge top` in a terminal of tmux's: keys, sizes, colours, signals, an agent that goes away and comes
# back, names that are commands to a terminal. Needs no root. E2E_TOP_PANES names a directory for what was shown.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
here=$root/tests/e2e
end_all() {
  tm kill-server 2>/dev/null || true
  cleanup
}
trap end_all EXIT

need curl curl
need openssl openssl
need python3 python3
need tmux tmux
nodegauge=$(binary)
cd "$work"
terminal=0
tm() { tmux -S "$work/tmux-$terminal" -f /dev/null "$@"; }
# A terminal of its own for each: a server that is ending would take the next one with it.
next_terminal() {
  tm kill-server 2>/dev/null || true
  terminal=$((terminal + 1))
}
python3 "$here/pages.py" tree "$root/fixtures/v2-cgroupfs-6.1/tree.ttar" tree
cp -r tree/sys/fs/cgroup/system.slice tree/sys/fs/cgroup/$'evil\e[2J\e]0;owned\a\u009bH.slice'
background move.log python3 "$here/pages.py" move "$work/tree"
free_port port
start_agent() {
  background agent.log "$nodegauge" agent --host-root "$work/tree" --listen "127.0.0.1:$port" --interval 1s \
    --runtime none --kubelet none --node-name node-1
  agent=$!
  wait_for 60 curl -fs "127.0.0.1:$port/readyz" || fail "the agent does not start: $(tail -3 agent.log)"
}
start_agent

# in_terminal WIDTH HEIGHT VARIABLES ARGUMENTS: runs top in a shell that says how it ended and how the
# terminal was left.
in_terminal() {
  next_terminal
  local left="; echo \"ended with \$?\"; stty -a | grep -o -- '-\\?icanon'; tput cnorm >/dev/null 2>&1; exec sleep 1000"
  tm new-session -d -x "$1" -y "$2" "export NO_COLOR= $3; $nodegauge top $4$left"
}
pane() { tm capture-pane -p "$@"; }
keep() { [ -z "${E2E_TOP_PANES:-}" ] || pane "${@:2}" >"$E2E_TOP_PANES/$1.txt"; }
has() { pane | grep -q -- "$1"; }
hasnt() { ! has "$1"; }
first() { pane | awk '/^(POD|CONTAINER|CGROUP)/ { getline; print; exit }' | grep -q -- "$1"; }
shows() { check "$1" wait_for 60 has "$2"; }
keys() { tm send-keys "$@"; }
top_pid() { pgrep -P "$(tm display-message -p '#{pane_pid}')" -x nodegauge; }

utf8="TERM=tmux-256color LC_ALL=C.UTF-8"
from="--from http://127.0.0.1:$port"
in_terminal 150 40 "$utf8" "$from"
shows "an agent's machine is shown" '^node-1 .* live, every 2s'
shows "with pods by namespace" '^▾ team-'
shows "and lines of the last minutes" '[▁▂▃▄▅▆▇█]\{3\}'
keep pods -e
check "in colours" grep -q $'\e\\[[0-9;]*3[0-9]m' <(pane -e)
keys n
check "sorts by name" wait_for 20 has '^POD▲'
keys m
check "sorts by memory" wait_for 20 has 'MEMORY▼'
keys /
tm send-keys -l service-77
keys Enter
shows "filters" '^1 pods.*filter: service-77'
keys Down Right
shows "opens a pod" '^      app-1'
keys Down Enter
shows "leads to a container" '^app-[01]  container · of team-'
shows "with its figures" 'working set .*MiB'
tm resize-window -x 60 -y 20
shows "in any size" '^vm\|^node-1'
keep container
tm resize-window -x 150 -y 40
keys '?'
shows "says what the keys are" 'by namespace, or not'
keep help
# Two at once would be another key.
keys Escape
shows "and comes back" 'working set .*MiB'
keys Escape
shows "and back" 'filter: service-77'
keys Escape
check "and takes the filter away" wait_for 20 hasnt 'filter: service-77'
keys 3
shows "shows the tree of cgroups" '^CGROUP▲'
keys /
tm send-keys -l evil
keys Enter
shows "a hostile name is text" 'evil?\[2J?\]0;owned?'
keep hostile
check "and no command" test "$(tm display-message -p '#{pane_title}')" != owned
keys Escape
wait_for 20 hasnt 'filter: evil' || fail "Esc does not take the filter away"
keys 1
shows "and pods again" '^▾ team-'

kill "$agent" && wait "$agent" 2>/dev/null || true
shows "an agent that is gone is told of" 'no answer since [0-9:]* UTC ([0-9]* s)'
shows "beside the last figures" '^▾ team-'
keep lost
start_agent
check "and found when it is back" wait_for 60 has 'live, every'
keys q
shows "ends by its key" 'ended with 0'
check "and leaves the terminal as it was" wait_for 20 has '^icanon'

for signal in INT TERM HUP; do
  in_terminal 100 30 "$utf8" "$from"
  wait_for 60 has '^▾ team-' || fail "nothing is shown"
  kill -"$signal" "$(top_pid)"
  shows "SIG$signal ends it" 'ended with 0'
  check "SIG$signal leaves the terminal as it was" wait_for 20 has '^icanon'
done

next_terminal
tm new-session -d -x 100 -y 30 "export $utf8; exec bash --norc -i"
tm send-keys "$nodegauge top $from" Enter
wait_for 60 has '^▾ team-' || fail "nothing is shown"
keys C-z
shows "Ctrl-Z gives the terminal back" 'Stopped'
keys fg Enter
shows "and takes it again" '^▾ team-'
keys C-c
shows "Ctrl-C ends it" '^bash.*[#$]'

in_terminal 80 24 "TERM=tmux LC_ALL=C NO_COLOR=1" "$from"
shows "a locale without Unicode gets ASCII" '^- team-'
check "and nothing else" test -z "$(pane | LC_ALL=C tr -d '\000-\177')"
check "NO_COLOR has no colours" test -z "$(pane -e | grep $'\e\\[[0-9;]*[34]\\([0-7]\|8;5;[0-9]*\\)m' || true)"
keep ascii
tm resize-window -x 30 -y 6
shows "it is shown in 30 by 6" '^- team-'
keep small
written_once() { tm capture-pane -p -S - | grep -q '^node-1  [0-9:]* UTC  25'; }
in_terminal 100 40 "TERM=dumb LC_ALL=C" "$from --interval 1s"
check "a dumb terminal gets one table" wait_for 60 written_once
tables() { [ "$(tm capture-pane -p -S - | grep -c '^node-1 ')" -ge 2 ]; }
check "after the other" wait_for 60 tables

in_terminal 100 30 "$utf8" "--host-root $work/tree --runtime none --kubelet none --node-name here"
shows "without an agent this process measures" '^here .* live, every'
shows "and has rates soon" '[1-9][0-9.]*m '
next_terminal

once() { "$nodegauge" top --once "$@" >once.txt 2>once.err; }
once $from --view containers --sort memory --filter 'team-7 app-0'
check "--once writes a table" grep -q '^    app-0  service-' once.txt
lines=$(grep -c '^    app-0 ' once.txt)
check "of what matches: $lines" test "$lines" -ge 12
check "and of nothing else" test "$(sed '1,/^CONTAINER/d' once.txt | grep -cv 'app-0\|^- team-7\|^▾ team-7')" = 0
check "what is not known is -" grep -q ' - ' once.txt
once --host-root "$work/tree" --runtime none --kubelet none
check "--once without an agent" grep -q 'service-' once.txt

new_key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" "${@:2}" 2>/dev/null; }
new_key ca -x509 -days 2 -subj /CN=ca -out ca.crt
new_key tls -subj /CN=node -out tls.csr
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile <(echo subjectAltName=IP:127.0.0.1) -out tls.crt 2>/dev/null
printf '%s\n' 0123456789abcdef-of-somebody >tokens
free_port safe
background safe.log "$nodegauge" agent --host-root "$work/tree" --listen "127.0.0.1:$safe" --runtime none --kubelet none \
  --tls-cert tls.crt --tls-key tls.key --auth token --auth-token-file tokens
wait_for 60 curl -fs --cacert ca.crt "https://127.0.0.1:$safe/readyz" || fail "the agent with TLS does not start"
check "a token and a CA" once --from "https://127.0.0.1:$safe?ca=ca.crt&token-file=tokens"
result=0
once --from "https://127.0.0.1:$safe?ca=ca.crt" || result=$?
check "without the token it is said why not" test "$result" = 1 -a "$(grep -c '401 a token or a certificate is needed' once.err)" = 1
result=0
once --from "https://127.0.0.1:$safe?token-file=tokens" || result=$?
check "nor is an unknown CA believed" test "$result" = 1 -a -s once.err
result=0
once --from "http://127.0.0.1:$port?tokens=x" || result=$?
check "a URL that is wrong is bad usage" test "$result" = 64
finish

# What scripts/bench measures with; sourced by it.
# shellcheck shell=bash

# --- figures -------------------------------------------------------------------------------------------------------------------------------------

# Seconds that a command takes. What it prints is shown only if it fails.
seconds() { # COMMAND...
    local start end
    start=$(date +%s.%N)
    "$@" >"$DIR/out" 2>&1 || { cat "$DIR/out" >&2; die "$* failed"; }
    end=$(date +%s.%N)
    echo "$end - $start" | bc
}

# CPU seconds (user and system, children included) that a command takes.
cpu_seconds() { # COMMAND...
    (TIMEFORMAT='%U %S'; { time "$@" >"$DIR/out" 2>&1; } 2>"$DIR/time") || { cat "$DIR/out" >&2; die "$* failed"; }
    awk '{ print $1 + $2 }' "$DIR/time"
}

# The middle one of the numbers on stdin.
median() {
    sort -g | awk '{ n[NR] = $1 } END { print NR % 2 ? n[(NR + 1) / 2] : (n[NR / 2] + n[NR / 2 + 1]) / 2 }'
}

row() { # WHAT UNIT OURS PEERS RATIO GOAL REMARK
    local figure=%.2f
    [[ $2 != tps && $2 != /s ]] || figure=%.0f
    # shellcheck disable=SC2059 # the format is ours
    printf "%s\t$figure %s\t%s\t%s\t%s\t%s\n" "$1" "$3" "$2" "$([ -z "$4" ] || printf "$figure %s" "$4" "$2")" "$5" "$6" "$7" >>"$DIR/table"
    tail -1 "$DIR/table" | tr '\t' '|' >&2
}

# Runs two functions, which print a figure each, in alternating pairs, and adds a row of medians. An empty PEER: only ours.
pairs() { # WHAT UNIT GOAL OURS PEER
    local ours=() peers=() ratios=() i
    for ((i = 0; i < PAIRS; i++)); do
        if [ -z "$5" ]; then
            ours+=("$("$4")")
            continue
        fi
        if ((i % 2)); then
            peers+=("$("$5")")
            ours+=("$("$4")")
        else
            ours+=("$("$4")")
            peers+=("$("$5")")
        fi
        ratios+=("$(echo "${ours[-1]} / ${peers[-1]}" | bc -l)")
    done
    local all='' peer='' ratio=''
    if [ -n "$5" ]; then
        peer=$(printf '%s\n' "${peers[@]}" | median)
        ratio=$(printf '%.2f' "$(printf '%s\n' "${ratios[@]}" | median)")
        all="pairs $(printf '%.2f ' "${ratios[@]}")"
    fi
    row "$1" "$2" "$(printf '%s\n' "${ours[@]}" | median)" "$peer" "$ratio" "$3" "${all}load $(cut -d' ' -f1 /proc/loadavg)"
}

# The most memory that a command of ours had, MB, noted under its name. GNU time writes it where we say.
note_memory() { # NAME KB
    printf '%s\t%s\n' "$1" "$2" >>"$DIR/memory"
}

table() {
    echo
    echo "$(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r), $(df --output=fstype "$DIR" | tail -1), pgbench scale $SCALE"
    { printf 'what\tours\tpeer\tratio\tgoal\tremark\n'; cat "$DIR/table"; } | column -t -s "$(printf '\t')"
    [ ! -s "$DIR/memory" ] || sort -t "$(printf '\t')" -k1,1 -k2,2nr "$DIR/memory" |
        awk -F '\t' '!seen[$1]++ { printf "%s%s %d MB", (NR > 1 ? "; " : ""), $1, $2 / 1024 } END { print "" }' |
        sed 's/^/memory at most (goal 300 MB): /'
}

# --- programs ------------------------------------------------------------------------------------------------------------------------------------

psql_() { as_postgres "$PGBIN/psql" -X -A -t -q -h "$SOCKET" -d postgres "$@"; }
bygone() { as_postgres "$DIR/bygone" --config "$DIR/bygone.toml" "$@"; }
pgbackrest() { as_postgres "$DIR/pgbackrest" --config "$DIR/pgbackrest.conf" --stanza=main "$@"; }

# Runs a command of ours and notes the memory that it had.
bygone_measured() { # COMMAND...
    as_postgres /usr/bin/time -f %M -o "$DIR/memory.one" "$DIR/bygone" --config "$DIR/bygone.toml" "$@"
    note_memory "$1" "$(tail -1 "$DIR/memory.one")"
}

archive_with() { # COMMAND
    psql_ -c "alter system set archive_command = '$1'" -c "select pg_reload_conf()" >/dev/null
}

archive_to_us() { archive_with "$DIR/bygone --config $DIR/bygone.toml archive-push %p"; }
archive_to_peer() { archive_with "$DIR/pgbackrest --config $DIR/pgbackrest.conf --stanza=main archive-push %p"; }

start() { # DATA SOCKET [OPTIONS]
    as_postgres mkdir -p "$2"
    as_postgres "$PGBIN/pg_ctl" -D "$1" -l "$DIR/log" -w -t 120 -o "-c unix_socket_directories=$2 ${3-}" start >/dev/null || { tail -20 "$DIR/log" >&2; die "no server on $1"; }
}

stop() { # DATA
    as_postgres "$PGBIN/pg_ctl" -D "$1" -m fast -w -t 300 stop >/dev/null
}

cleanup() {
    local mount
    for one in "$DIR"/mnt* "$DIR/native" "$DATA"; do
        as_postgres "$PGBIN/pg_ctl" -D "$one" -m immediate -w stop >/dev/null 2>&1 || true
    done
    for mount in "$DIR"/mnt*; do
        ! mountpoint -q "$mount" || umount -l "$mount" || true
    done
    rm -rf "$DIR"
}

prepare() {
    chmod 755 "$DIR"
    mkdir "$SOCKET" "$DIR/repo" "$DIR/peer"
    : >"$DIR/table" >"$DIR/memory"
    cp "$BYGONE" "$DIR/bygone"
    [ -z "$PEER" ] || cp "$PEER" "$DIR/pgbackrest"
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$DIR/key"
    cat >"$DIR/bygone.toml" <<TOML
[repo.1]
type = "posix"
path = "$DIR/repo"
key-file = "$DIR/key"
[cluster.main]
data-directory = "$DATA"
connection = "host=$SOCKET user=postgres dbname=postgres"
[compress]
level = 3
[archive]
parallel = 2
[backup]
parallel = 2
TOML
    cat >"$DIR/pgbackrest.conf" <<CONF
[global]
repo1-path=$DIR/peer
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=$(cat "$DIR/key")
repo1-bundle=y
compress-type=zst
compress-level=3
process-max=2
start-fast=y
log-path=$DIR/peer
lock-path=$DIR/peer
spool-path=$DIR/peer
log-level-console=warn
log-level-file=off
archive-async=y
[main]
pg1-path=$DATA
pg1-socket-path=$SOCKET
CONF
    chmod 600 "$DIR/key" "$DIR/bygone.toml" "$DIR/pgbackrest.conf"
    [ "$(id -u)" != 0 ] || chown -R postgres: "$DIR"
    as_postgres "$PGBIN/initdb" -D "$DATA" -U postgres -A trust -k >/dev/null
    cat >>"$DATA/postgresql.conf" <<CONF
listen_addresses = ''
archive_mode = on
archive_command = 'true'
autovacuum = off
max_wal_size = 8GB
checkpoint_timeout = 1h
CONF
    start "$DATA" "$SOCKET"
    as_postgres "$PGBIN/createuser" -h "$SOCKET" -U postgres -s root >/dev/null 2>&1 || true
    bygone init >/dev/null
    [ -z "$PEER" ] || pgbackrest stanza-create
    as_postgres "$PGBIN/pgbench" -h "$SOCKET" -i -q -s "$SCALE" postgres >/dev/null 2>&1
    psql_ -c 'vacuum freeze' -c checkpoint
}

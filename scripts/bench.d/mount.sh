# The way out: a clone beside native Postgres on a copy of the same files, and files of a mount beside plain ones. Sourced by scripts/bench.
# shellcheck shell=bash

OPTIONS='-c shared_buffers=64MB -c archive_mode=off -c max_wal_size=8GB'

# Mounts a moment in the foreground and waits until its files are there.
mount_at() { # NAME [OPTIONS]
    local dir=$DIR/$1
    mkdir -p "$dir"
    [ "$(id -u)" != 0 ] || chown postgres: "$dir"
    "$DIR/bygone" --config "$DIR/bygone.toml" mount --foreground --at latest "${@:2}" "$dir" >"$DIR/$1.log" 2>&1 &
    echo $! >"$DIR/$1.pid"
    until mountpoint -q "$dir"; do
        kill -0 "$(cat "$DIR/$1.pid")" 2>/dev/null || { cat "$DIR/$1.log" >&2; die "mount failed"; }
        sleep 0.01
    done
}

unmount() { # NAME
    local pid
    pid=$(cat "$DIR/$1.pid")
    note_memory "$1" "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")"
    "$DIR/bygone" umount "$DIR/$1"
    wait "$pid"
    rmdir "$DIR/$1"
}

# The same state twice, each with a server on it: a copy of the stopped cluster, and a clone of its newest moment, some work after the last backup.
prepare_clone() {
    [ ! -e "$DIR/native" ] || return 0
    archive_to_us
    bygone_measured backup >/dev/null
    as_postgres "$PGBIN/pgbench" -h "$SOCKET" -n -c 4 -j 2 -t 5000 postgres >/dev/null 2>&1
    psql_ -c 'select pg_switch_wal()' >/dev/null
    wait_archived
    stop "$DATA"
    cp -a "$DATA" "$DIR/native"
    mount_at mnt --overlay "$DIR/overlay"
    start "$DIR/native" "$DIR/native.socket" "$OPTIONS"
    start "$DIR/mnt" "$DIR/mnt.socket" "$OPTIONS"
    # Warm: every page was read once.
    for side in native mnt; do
        cat "$DIR/$side"/base/*/* >/dev/null
        on "$side" -c 'set max_parallel_workers_per_gather = 0' -c 'select count(*), sum(abalance) from pgbench_accounts' >"$DIR/$side.sum"
        on "$side" -c 'vacuum pgbench_accounts'
    done
    cmp "$DIR/native.sum" "$DIR/mnt.sum" || die "the clone differs from the copy"
}

on() { # SIDE OPTIONS...
    as_postgres "$PGBIN/psql" -X -A -t -q -h "$DIR/$1.socket" -d postgres "${@:2}"
}

tps() { # SIDE OPTIONS...
    as_postgres "$PGBIN/pgbench" -n -h "$DIR/$1.socket" -c 4 -j 2 -T "$SECONDS_EACH" "${@:2}" postgres 2>"$DIR/out" | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}

bench_scan() {
    prepare_clone
    scan() { seconds on "$1" -c 'set max_parallel_workers_per_gather = 0' -c 'select count(*) from pgbench_accounts'; }
    our_scan() { scan mnt; }
    native_scan() { scan native; }
    pairs 'sequential scan (peer: native)' s '<= 1.1' our_scan native_scan
}

bench_select() {
    prepare_clone
    our_select() { tps mnt -S; }
    native_select() { tps native -S; }
    pairs 'pgbench -S (peer: native)' tps '>= 0.95' our_select native_select
}

bench_tpcb() {
    prepare_clone
    : >"$DIR/checkpoints"
    # A checkpoint before each run, so that each writes its full pages; its time is the checkpoint's figure.
    tpcb() {
        tps "$1"
        echo "$1 $(seconds on "$1" -c checkpoint)" >>"$DIR/checkpoints"
    }
    our_tpcb() { tpcb mnt; }
    native_tpcb() { tpcb native; }
    pairs 'pgbench TPC-B (peer: native)' tps '>= 0.9' our_tpcb native_tpcb
    next_checkpoint() { # SIDE
        sed -n "s/^$1 //p" "$DIR/checkpoints" | head -1
        sed -i "0,/^$1 /{/^$1 /d}" "$DIR/checkpoints"
    }
    our_checkpoint() { next_checkpoint mnt; }
    native_checkpoint() { next_checkpoint native; }
    pairs 'CHECKPOINT after it (peer: native)' s '<= 1.5' our_checkpoint native_checkpoint
}

end_clone() {
    [ -e "$DIR/native" ] || return 0
    stop "$DIR/mnt"
    stop "$DIR/native"
    unmount mnt
    rm -rf "$DIR/native" "$DIR/overlay"
    start "$DATA" "$SOCKET"
}

# The first file of the big table, from a mount whose chunks are in the operating system's memory but whose files nobody has read (the first figure), and
# from one whose files were read before.
bench_cat() {
    local file
    end_clone
    archive_to_us
    bygone_measured backup >/dev/null
    file=$(psql_ -c "select pg_relation_filepath('pgbench_accounts')")
    # shellcheck disable=SC2016 # the inner shell's
    cat_it() { seconds sh -c 'cat "$0" >/dev/null' "$1"; }
    plain() { cat "$DATA/$file" >/dev/null; cat_it "$DATA/$file"; }
    # Memory that nobody used for a while may have gone back to the machine's host, and comes back slowly: had before it is measured.
    our_cat() {
        mount_at mnt-cat
        head -c "$(stat -c %s "$DATA/$file")" /dev/zero >"$DIR/fill"
        rm "$DIR/fill"
        cat_it "$DIR/mnt-cat/$file"
        unmount mnt-cat
    }
    pairs "cat of $(du -m "$DATA/$file" | cut -f1) MB, chunks cached (peer: plain file)" s '<= 3' our_cat plain
    mount_at mnt-cat
    cat "$DIR/mnt-cat/$file" | cmp - "$DATA/$file" || die "the mount differs"
    our_cat_again() { cat_it "$DIR/mnt-cat/$file"; }
    pairs "the same a second time" s '<= 3' our_cat_again plain
    unmount mnt-cat
    if [ -w /proc/sys/vm/drop_caches ]; then
        forget() { sync && echo 3 >/proc/sys/vm/drop_caches; }
        our_cold_cat() { mount_at mnt-cat && forget && cat_it "$DIR/mnt-cat/$file" && unmount mnt-cat; }
        cold() { forget && cat_it "$DATA/$file"; }
        pairs "the same, nothing in memory" s '<= 3' our_cold_cat cold
    fi
}

# A backup of many small files: names that Postgres does not know, in a database's directory.
bench_files() {
    local base
    end_clone
    archive_to_us
    base=$(psql_ -c "select 'base/' || oid from pg_database where datname = 'postgres'")
    head -c $((FILES * 8192)) /dev/zero | as_postgres split -b 8192 -a 6 --numeric-suffixes=100000 - "$DATA/$base/9"
    bygone_measured backup >/dev/null
    find "$DATA/$base" -name '9??????' -delete
    listing() { mount_at mnt-files; ls "$DIR/mnt-files" >/dev/null; }
    our_files() {
        seconds listing
        [ "$(find "$DIR/mnt-files/$base" -type f | wc -l)" -ge "$FILES" ] || die "files are missing in the mount"
        unmount mnt-files
    }
    pairs "mount --at and ls, backup of $FILES files" s '< 1 s' our_files ''
}

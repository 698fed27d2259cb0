# A moment behind much WAL: a clone of it beside native Postgres that was stopped there, and beside a restore with recovery. Sourced by scripts/bench.
# shellcheck shell=bash

WAL_MB=${BENCH_WAL_MB:-1024}

# What the small table holds, and what tells whether two servers show the same moment.
COUNT='select count(*) from few'
SAME='select count(*), sum(abalance) from pgbench_accounts'

wal_mb() { psql_ -c "select ((pg_current_wal_lsn() - '$(cat "$DIR/moment.begin")') / 1048576)::int"; }

# Notes a moment, as a time. At the beginning of a segment: the one that it lies in is read record by record up to it.
note_moment() { # NAME
    psql_ -c 'select pg_switch_wal()' >/dev/null
    sleep 1.1
    psql_ -c 'select clock_timestamp()' | tee "$DIR/moment.$1" >>"$DIR/moment.$1.all"
    sleep 1.1
}

# pgbench and bulk loads with indexes, until so much WAL has been written since the backup. Notes moments in the last of it, at about the same distances
# from each other whatever the amount: how long a page's way is from its last image depends on when the last checkpoint was.
write_wal() { # MB NAME
    while (($(wal_mb) < $1)); do
        ((${WAL_MB} / 20 + $(wal_mb) < $1)) || note_moment "$2"
        as_postgres "$PGBIN/pgbench" -h "$SOCKET" -n -c 4 -j 2 -t 2500 postgres >/dev/null 2>&1
        psql_ >/dev/null 2>&1 <<SQL
drop table if exists bulk;
create table bulk as select g as id, md5(g::text) as a, random() as b from generate_series(1, 400000) g;
create index on bulk (a);
alter table bulk add primary key (id);
delete from bulk where id % 50 = 7;
vacuum bulk;
SQL
    done
    note_moment "$2"
    psql_ -c "$SAME" >"$DIR/moment.$2.same"
    psql_ -c 'select wal_records from pg_stat_wal' >"$DIR/moment.$2.records"
    as_postgres "$PGBIN/pgbench" -h "$SOCKET" -n -c 1 -t 10 postgres >/dev/null 2>&1
}

# A backup in each repository, then WAL in each: a moment after a tenth of it (near), one after all of it (far). The server is stopped then.
prepare_moment() {
    local both="$DIR/bygone --config $DIR/bygone.toml archive-push %p"
    end_clone
    psql_ -c 'create table few as select g as id from generate_series(1, 100) g' -c "alter system set max_wal_size = '1GB'"
    [ -z "$PEER" ] || both="$both && $DIR/pgbackrest --config $DIR/pgbackrest.conf --stanza=main archive-push %p"
    archive_with "$both"
    bygone_measured backup >/dev/null
    [ -z "$PEER" ] || pgbackrest --type=full backup
    psql_ -c 'select pg_current_wal_lsn()' >"$DIR/moment.begin"
    psql_ -c 'select wal_records from pg_stat_wal' >"$DIR/moment.begin.records"
    write_wal $((WAL_MB / 10)) near
    write_wal "$WAL_MB" far
    psql_ -c 'select pg_switch_wal()' >/dev/null
    wait_archived
    stop "$DATA"
    sed -e "s|^\[cluster.main\]|[clone]\ndirectory = \"$DIR/clones\"\n[cluster.main]\nbin-directory = \"$PGBIN\"|" "$DIR/bygone.toml" >"$DIR/moment.toml"
}

clones() { "$DIR/bygone" --config "$DIR/moment.toml" "$@"; }
ask_clone() { as_postgres "$PGBIN/psql" -X -A -t -q -h "$DIR/clones/$1/server" -p 28417 -d postgres -c "$2"; }

# From the command to the answer. The clone is left there.
clone_and_ask() { # NAME [TIME]
    clones clone create "$1" --at "${2:-$(cat "$DIR/moment.$1")}" --port 28417 >/dev/null
    [ "$(ask_clone "$1" "$COUNT")" = 100 ]
}

# A number that a clone tells of itself: it is written every second.
told() { # NAME FIELD
    sleep 1.2
    clones --json clone list | tr ',{' '\n\n' | sed -n "s/^\"$2\": *\([0-9]*\).*/\1/p" | head -1
}

end_of() { clones clone destroy "$1" >/dev/null; }

# The server's own data directory, stopped cleanly: what any start takes.
start_native() {
    start "$DATA" "$SOCKET" '-c archive_mode=off'
    [ "$(psql_ -c "$COUNT")" = 100 ]
}

# What pgBackRest restores, and Postgres replays to the moment.
restore_and_replay() {
    as_postgres mkdir -p "$DIR/native" "$DIR/native.socket" "$DIR/native.spool"
    # A restore empties the spool, which must not be where the repository is.
    as_postgres "$DIR/pgbackrest" --config "$DIR/pgbackrest.conf" --stanza=main --pg1-path="$DIR/native" --spool-path="$DIR/native.spool" \
        --type=time --target="$(cat "$DIR/moment.far")" --target-action=promote restore
    as_postgres "$PGBIN/pg_ctl" -D "$DIR/native" -l "$DIR/replayed.log" -w -t 3600 \
        -o "-c unix_socket_directories=$DIR/native.socket -c hot_standby=off -c archive_mode=off" start
    # It has started as soon as it replays.
    until [ "$(on native -c "$COUNT" 2>/dev/null)" = 100 ]; do
        kill -0 "$(head -1 "$DIR/native/postmaster.pid")" || return
        sleep 0.02
    done
}

# The clone reads all of the big table's first file. Says how many pages it rebuilt and records it applied in a second of processor time.
measure_rebuilding() {
    local file pid cpu pages records
    file=$(ask_clone far "select pg_relation_filepath('pgbench_accounts')")
    pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$DIR/clones/far/status.json" | head -1)
    pages=$(told far rebuilt_pages) records=$(told far applied_records)
    cpu=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
    cat "$DIR/clones/far/data/$file" >/dev/null
    cpu=$(echo "($(awk '{ print $14 + $15 }' "/proc/$pid/stat") - $cpu) / $(getconf CLK_TCK)" | bc -l)
    pages=$(($(told far rebuilt_pages) - pages)) records=$(($(told far applied_records) - records))
    PAGES_RATE=$(echo "$pages / $cpu" | bc -l) RECORDS_RATE=$(echo "$records / $cpu" | bc -l)
}

bench_moment() {
    local wal rates native_rate='' ratio='' all_records
    prepare_moment
    wal="$(wc -l < <(find "$DIR"/repo/cluster/main/*/wal -type f)) segments of WAL"
    our_far() { seconds clone_and_ask far; end_of far; }
    # One noted moment after the other; functions of a pair run in subshells, so it is told by a file which is next.
    our_next() { # NAME
        local next
        next=$(head -1 "$DIR/moment.$1.all")
        { tail -n +2 "$DIR/moment.$1.all" && echo "$next"; } >"$DIR/moment.$1.turned"
        mv "$DIR/moment.$1.turned" "$DIR/moment.$1.all"
        seconds clone_and_ask "$1" "$next"
        end_of "$1"
    }
    next_far() { our_next far; }
    next_near() { our_next near; }
    native() { seconds start_native; stop "$DATA"; }
    pairs "clone create to count(*), $wal (peer: native start)" s '+2 s' our_far native
    # As many pairs as there are moments behind all of it, at least.
    PAIRS=$((PAIRS > $(wc -l <"$DIR/moment.far.all") ? PAIRS : $(wc -l <"$DIR/moment.far.all"))) \
        pairs 'the same at several moments (peer: a tenth of the WAL)' s '<= 1.2' next_far next_near
    clone_and_ask far
    row 'fetched until then' MB "$(echo "$(told far fetched_bytes) / 1000000" | bc -l)" '' '' '< 64' ''
    note_memory mount-far "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$DIR/clones/far/status.json" | head -1)/status")"
    measure_rebuilding
    [ "$(ask_clone far "$SAME")" = "$(cat "$DIR/moment.far.same")" ] || die "the clone differs from what was there"
    end_of far
    if [ -n "$PEER" ]; then
        our_far_once() { our_far; }
        local PAIRS=1
        peer_restore() { seconds restore_and_replay; }
        pairs 'the same (peer: pgBackRest restores, Postgres replays)' s '' our_far_once peer_restore
        [ "$(on native -c "$SAME")" = "$(cat "$DIR/moment.far.same")" ] || die "what was restored differs from what was there"
        stop "$DIR/native"
        all_records=$(($(cat "$DIR/moment.far.records") - $(cat "$DIR/moment.begin.records")))
        rates=$(sed -n 's/.*redo done at.*CPU: user: \([0-9.]*\) s, system: \([0-9.]*\) s.*/\1 + \2/p' "$DIR/replayed.log" | tail -1)
        native_rate=$(echo "$all_records / ($rates)" | bc -l)
        ratio=$(printf %.2f "$(echo "$RECORDS_RATE / $native_rate" | bc -l)")
        rm -rf "$DIR/native" "$DIR/native.socket" "$DIR/native.spool"
    fi
    row 'pages rebuilt in 1 s of CPU' /s "$PAGES_RATE" '' '' '' ''
    row 'records applied in 1 s of CPU (peer: native)' /s "$RECORDS_RATE" "$native_rate" "$ratio" '' ''
    start "$DATA" "$SOCKET"
}

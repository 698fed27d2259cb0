# The block index of 10,000 segments and a backup of 10 TB, both simulated: examples/index-scale says what they consist of. Sourced by scripts/bench.
# shellcheck shell=bash

SEGMENTS=${BENCH_SEGMENTS:-10000}
# As examples/index-scale has it.
XIDS_IN_SEGMENT=1500

wide() { as_postgres "$DIR/bygone" --config "$DIR/wide.toml" "$@"; }

# A real cluster with a real backup, whose server goes on so many segments and transactions later.
prepare_wide() {
    local data=$DIR/native socket=$DIR/wide.socket next_no name page
    end_clone
    sed -e "s|$DIR/repo\"|$DIR/wide-repo\"|" -e "s|\"$DATA\"|\"$data\"|" -e "s|host=$SOCKET |host=$socket |" "$DIR/bygone.toml" >"$DIR/wide.toml"
    mkdir "$DIR/wide-repo"
    [ "$(id -u)" != 0 ] || chown postgres: "$DIR/wide-repo" "$DIR/wide.toml"
    chmod 600 "$DIR/wide.toml"
    as_postgres "$PGBIN/initdb" -D "$data" -U postgres -A trust -k >/dev/null
    cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
archive_mode = on
archive_command = '$DIR/bygone --config $DIR/wide.toml archive-push %p'
autovacuum = off
CONF
    start "$data" "$socket"
    wide init >/dev/null
    in_wide -c 'create table few as select g as id from generate_series(1, 100) g'
    wide backup >/dev/null
    in_wide -c 'select pg_switch_wal()' >/dev/null
    stop "$data"
    next_no=$(find "$DIR"/wide-repo/cluster/main/*/wal -type f -printf '%f\n' | sort | tail -1)
    next_no=$(((16#${next_no:8:8} << 8) + 16#${next_no:16:8} + 1 + SEGMENTS))
    name=$(printf '00000001%08X%08X' $((next_no >> 8)) $((next_no & 255)))
    page=$(((10000 + (SEGMENTS + 1) * XIDS_IN_SEGMENT) / 32768))
    as_postgres "$PGBIN/pg_resetwal" -D "$data" -l "$name" -x $(((page + 1) * 32768 + 3)) >/dev/null
    # The server wants the page of its next transactions to be there.
    as_postgres truncate -s 256K "$data/pg_xact/$(printf '%04X' $(((page + 1) / 32)))"
    start "$data" "$socket"
    in_wide -c 'insert into few select generate_series(101, 110)' -c 'select pg_switch_wal()' >/dev/null
    until [ -n "$(find "$DIR"/wide-repo/cluster/main/*/wal -name "$name")" ]; do sleep 0.05; done
    stop "$data"
}

in_wide() { as_postgres "$PGBIN/psql" -X -A -t -q -h "$DIR/wide.socket" -U postgres -d postgres "$@"; }

bench_index() {
    local scale
    scale=${BENCH_INDEX_SCALE:-}
    if [ -z "$scale" ]; then
        cargo build --release --quiet --example index-scale
        scale=${CARGO_TARGET_DIR:-target}/release/examples/index-scale
    fi
    cp "$scale" "$DIR/index-scale"
    prepare_wide
    index_scale() { as_postgres "$DIR/index-scale" "$1" "$DIR/wide-repo" "$DIR/key" main | tee -a "$DIR/index.figures" >&2; }
    index_scale fill
    say "without roll-ups:"
    index_scale measure
    as_postgres /usr/bin/time -f '%e %M' -o "$DIR/memory.one" "$DIR/bygone" --config "$DIR/wide.toml" index >&2
    row "bygone index, $SEGMENTS segments" s "$(tail -1 "$DIR/memory.one" | cut -d' ' -f1)" '' '' '' ''
    note_memory index "$(tail -1 "$DIR/memory.one" | cut -d' ' -f2)"
    say "with roll-ups (goal: 4 reads cold, 100 us warm, 512 MB):"
    index_scale measure
    wide_opens() { seconds wide_mount; end_wide; }
    wide_mount() {
        mkdir -p "$DIR/mnt-wide"
        "$DIR/bygone" --config "$DIR/wide.toml" mount --foreground --at latest "$DIR/mnt-wide" >"$DIR/mnt-wide.log" 2>&1 &
        echo $! >"$DIR/mnt-wide.pid"
        until mountpoint -q "$DIR/mnt-wide"; do
            kill -0 "$(cat "$DIR/mnt-wide.pid")" 2>/dev/null || { cat "$DIR/mnt-wide.log" >&2; die "mount failed"; }
            sleep 0.01
        done
        ls "$DIR/mnt-wide" >/dev/null
    }
    end_wide() {
        find "$DIR/mnt-wide" -type f | wc -l >"$DIR/wide.files"
        unmount mnt-wide
    }
    pairs "mount --at, $SEGMENTS segments, 10 TB" s '' wide_opens ''
    say "a mount over it, all $(cat "$DIR/wide.files") files seen: $(sed -n 's/^mnt-wide\t//p' "$DIR/memory" | sort -n | tail -1) kB at most (goal: 512 MB)"
    rm -rf "$DIR/native" "$DIR/wide-repo" "$DIR/wide.socket"
}

# The way in: backups and archiving, beside pgBackRest and beside zstd with a cipher. Sourced by scripts/bench.
# shellcheck shell=bash

bench_backup() {
    our_backup() { archive_to_us; seconds bygone_measured backup; }
    peer_backup() { archive_to_peer; seconds pgbackrest --type=full backup; }
    pairs "full backup of $(du -sm "$DATA/base" | cut -f1) MB" s '<= 1.0' our_backup "${PEER:+peer_backup}"
}

# The name of a complete segment of real WAL, from loading a table, that waits to be archived.
real_segment() {
    as_postgres "$PGBIN/createdb" -h "$SOCKET" -U postgres segments >/dev/null 2>&1 || true
    as_postgres "$PGBIN/pgbench" -h "$SOCKET" -i -q -s 5 segments >/dev/null 2>&1
    find "$DATA/pg_wal/archive_status" -name '*.ready' -printf '%f\n' | sort | sed -n '2{s/.ready//;p}'
}

bench_segment() {
    local segment
    archive_with false
    segment=$DATA/pg_wal/$(real_segment)
    our_push() {
        # A segment that is already there costs less: each round begins without it.
        rm -rf "$DIR"/repo/cluster/main/*/wal
        cpu_seconds push_one "pg_wal/${segment##*/}"
    }
    push_one() { as_postgres env --chdir="$DATA" BYGONE_ARCHIVE_BATCH=1 "$DIR/bygone" --config "$DIR/bygone.toml" archive-push "$1"; }
    plain() {
        cpu_seconds compress_and_encrypt
    }
    compress_and_encrypt() {
        as_postgres zstd -3 -T1 -f -q "$segment" -o "$DIR/segment.zst"
        as_postgres openssl enc -aes-256-cbc -K "$(cat "$DIR/key")" -iv 00000000000000000000000000000000 -in "$DIR/segment.zst" -out "$DIR/segment.enc"
    }
    pairs 'one 16 MB segment archived, CPU (peer: zstd -3, aes)' s '<= 1.5' our_push plain
    as_postgres env --chdir="$DATA" BYGONE_ARCHIVE_BATCH=1 /usr/bin/time -f %M -o "$DIR/memory.one" "$DIR/bygone" --config "$DIR/bygone.toml" \
        archive-push "pg_wal/${segment##*/}" >/dev/null
    note_memory archive-push "$(tail -1 "$DIR/memory.one")"
    archive_to_us
    wait_archived
}

# Leaves 200 segments waiting.
backlog() {
    archive_with false
    for ((n = 0; n < 200; n++)); do
        echo "insert into filler select generate_series(1, 20000), repeat(md5(random()::text), 2); select pg_switch_wal();"
    done | psql_ -c 'drop table if exists filler' -c 'create table filler (n int, v text)' -f - >/dev/null
}

wait_archived() {
    local last
    last=$(find "$DATA/pg_wal/archive_status" -name '*.ready' -printf '%f\n' | sort | tail -1)
    until [ ! -e "$DATA/pg_wal/archive_status/$last" ] || [ -z "$last" ]; do sleep 0.05; done
}

bench_backlog() {
    local PAIRS=2
    our_drain() { backlog; seconds drain archive_to_us; }
    peer_drain() { backlog; seconds drain archive_to_peer; }
    drain() { "$1"; wait_archived; }
    pairs 'backlog of 200 segments drained (peer: async)' s '< 1.0' our_drain "${PEER:+peer_drain}"
    psql_ -c 'drop table filler' -c checkpoint
}

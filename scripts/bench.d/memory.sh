# How much memory each command has at most, whatever it works on: large WAL segments, two repositories, an object store. Sourced by scripts/bench.
# shellcheck shell=bash

# Runs a command of ours with the configuration of bench_memory, and notes its memory under NAME.
remembered() { # NAME COMMAND...
    local name=$1
    shift
    as_postgres /usr/bin/time -f %M -o "$DIR/memory.one" "$DIR/bygone" --config "$DIR/wal/bygone.toml" "$@" >"$DIR/out" 2>&1 ||
        { cat "$DIR/out" >&2; die "$* failed"; }
    note_memory "$name" "$(tail -1 "$DIR/memory.one")"
}

# A small cluster with WAL segments of so many MB, some of them full of bytes that do not compress, and its configuration with these repositories.
large_segments() { # MB [REPO...]
    local mb=$1 data=$DIR/wal/data repo
    rm -rf "$DIR/wal"
    as_postgres mkdir -p "$data" "$DIR/wal/cache"
    as_postgres "$PGBIN/initdb" -D "$data" -U postgres -A trust -k --wal-segsize="$mb" >/dev/null
    cat >"$DIR/wal/bygone.toml" <<TOML
[cluster.main]
data-directory = "$data"
connection = "host=$DIR/wal user=postgres dbname=postgres"
[cache]
directory = "$DIR/wal/cache"
TOML
    for repo in "${@:2}"; do
        printf '[repo.%s]\nkey-file = "%s"\n%s\n' "${repo%%:*}" "$DIR/key" "${repo#*:}" >>"$DIR/wal/bygone.toml"
    done
    [ "$(id -u)" != 0 ] || chown -R postgres: "$DIR/wal"
    as_postgres tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
archive_mode = on
archive_command = 'false'
min_wal_size = $((mb * 2))MB
max_wal_size = $((mb * 3))MB
CONF
    start "$data" "$DIR/wal"
    remembered init init
    as_postgres "$PGBIN/psql" -X -q -h "$DIR/wal" -d postgres -U postgres >/dev/null <<SQL
create table noise (b bytea);
alter table noise alter b set storage external;
with one as materialized (select decode(string_agg(md5(random()::text || g), ''), 'hex') as b from generate_series(1, 65536) g)
insert into noise select b from one, generate_series(1, $mb);
select pg_switch_wal();
SQL
}

# The names of the complete segments that wait to be archived.
waiting() { find "$DIR/wal/data/pg_wal/archive_status" -name '*.ready' -printf '%f\n' | sed 's/.ready//' | sort; }

# Archives two of those that wait, and fetches them again.
through_the_archive() { # NAME
    local segment
    for segment in $(waiting | head -2); do
        remembered "archive-push, $1" archive-push "$DIR/wal/data/pg_wal/$segment"
        remembered "archive-get, $1" archive-get "$segment" "$DIR/wal/got"
        cmp "$DIR/wal/got" "$DIR/wal/data/pg_wal/$segment" || die "$segment comes back as something else"
    done
}

bench_memory() {
    local first="1:type = \"posix\"
path = \"$DIR/wal/one\"" second="2:type = \"posix\"
path = \"$DIR/wal/two\""
    end_clone
    large_segments 64 "$first" "$second"
    through_the_archive 'two repositories, 64 MB segments'
    as_postgres sed -i "s|^archive_command = .*|archive_command = '$DIR/bygone --config $DIR/wal/bygone.toml archive-push %p'|" "$DIR/wal/data/postgresql.conf"
    as_postgres "$PGBIN/pg_ctl" -D "$DIR/wal/data" reload >/dev/null
    remembered 'backup, two repositories' backup
    remembered check check
    remembered index index
    remembered info info
    remembered ls ls --at latest base
    remembered cat cat --at latest global/pg_control
    stop "$DIR/wal/data"
    large_segments 1024 "$first"
    through_the_archive '1 GB segments'
    stop "$DIR/wal/data"
    rm -rf "$DIR/wal"
}

-- Acts of the storm: each begins with a line `-- act NAME [VERSIONS]` and is run many times. {r} is the number of the run, {p} that of an earlier one,
-- {file_copy} and {wal_log} ask CREATE DATABASE for a strategy where there is a choice (15 and later).

-- act churn
update heap set v = 'r{r} ' || id, w = repeat(md5((id + {r})::text), id % 9) where id % 13 = {r} % 13;
delete from heap where id % 97 = {r} % 97;
insert into heap select 100000 * ({r} + 1) + g, 'new', repeat('n', g % 300) from generate_series(1, 400) g;
-- act vacuum
vacuum heap;
vacuum (freeze) pairs;
vacuum many;
-- act vacuum-all
vacuum (freeze, analyze);
-- act cut
insert into to_cut select g, repeat('t', 300) from generate_series(1, 3000) g;
delete from to_cut where a > {r} * 10 % 700;
vacuum to_cut;
insert into to_cut select g, 'again' from generate_series(1, 200) g;
-- act cut-map
create table if not exists wide_{p} (a int) with (fillfactor = 10);
insert into wide_{p} select g from generate_series(1, 3000) g;
vacuum (freeze) wide_{p};
delete from wide_{p} where a > 500;
vacuum wide_{p};
update wide_{p} set a = a + 1 where a % 50 = 1;
drop table if exists wide_{r};
-- act truncate
truncate to_empty;
insert into to_empty select generate_series(1, 500);
begin; savepoint a; truncate to_empty; insert into to_empty values ({r}); rollback to a; insert into to_empty values (1); commit;
begin; truncate to_empty, fleeting; insert into to_empty select generate_series(1, 100); rollback;
begin; insert into to_empty values (7); savepoint a; truncate to_empty; insert into to_empty values (8); commit;
-- act tables
create table t_{r} (a int primary key, b text);
insert into t_{r} select g, 'b' || g from generate_series(1, 300) g;
begin; create table gone_{r} as select generate_series(1, 900) a; drop table t_{r}; rollback;
begin; alter table t_{r} alter a type bigint; commit;
drop table if exists t_{p};
-- act rewrite
cluster pairs using pairs_pkey;
vacuum full to_empty;
reindex table many;
-- act catalog
vacuum full pg_class;
vacuum full pg_database;
vacuum full pg_attribute;
-- act subtransactions
do $$ begin for i in 1..90 loop begin insert into subs values (i, {r}); if i % 7 = 0 then raise division_by_zero; end if; exception when division_by_zero then null; end; end loop; end $$;
begin;
do $$ begin for i in 1..90 loop begin insert into subs values (i, {r}); exception when division_by_zero then null; end; end loop; end $$;
rollback;
-- act two-phase
begin; insert into pairs_log values ({r}); create table two_{r} (a int primary key); insert into two_{r} values (1); savepoint s; insert into two_{r} values (2); release s; prepare transaction 'p{r}';
begin; drop table if exists two_{p}_old; insert into subs values ({r}, 0); prepare transaction 'q{r}';
rollback prepared 'q{r}';
-- act two-phase-end
select 'commit prepared ''' || gid || '''' from pg_prepared_xacts where gid <> 'p{r}' and random() < 0.5 limit 2 \gexec
select 'rollback prepared ''' || gid || '''' from pg_prepared_xacts where random() < 0.2 limit 1 \gexec
-- act database-copied
create database copied_{r} template crowded {file_copy};
\c copied_{r}
create table more as select g, repeat('m', 50) t from generate_series(1, 500) g;
update crowd set b = 'changed' where a % 3 = 0;
vacuum crowd;
-- act database-logged
create database logged_{r} template crowded {wal_log};
\c logged_{r}
update crowd set b = 'changed' where a % 3 = 1;
delete from crowd where a > 100;
vacuum full crowd;
-- act database-changed
\c crowded
update crowd set b = 'r{r}' where a % 5 = {r} % 5;
insert into crowd select g, 'r{r}' from generate_series(1, 200) g;
vacuum crowd;
-- act database-moved 15
-- Not on 14, whose own recovery loses rows here (of 12 on the primary it kept 5), so that it cannot be the judge: see moved.rs. 15 and later make
-- every process close the files of a database that goes away (PROCSIGNAL_BARRIER_SMGRRELEASE).
alter database moving set tablespace extra;
\c moving
insert into place values ({r}, 'extra');
\c postgres
alter database moving set tablespace pg_default;
\c moving
insert into place values ({r}, 'default');
-- act database-away
create database away_{r} template crowded {file_copy};
alter database away_{r} set tablespace extra;
\c away_{r}
update crowd set b = 'away' where a % 4 = 1;
vacuum crowd;
-- act database-dropped
select 'drop database ' || datname from pg_database where datname ~ '^(copied|logged|away)_' order by random() limit 2 \gexec
-- act tablespace
alter table moved set tablespace extra;
alter index moved_pkey set tablespace extra;
update moved set a = a + 5000 where a % 7 = {r} % 7;
alter table moved set tablespace pg_default;
create table there_{r} (a int) tablespace extra;
insert into there_{r} values (1);
drop table if exists there_{p};
-- act tablespace-in-place
set allow_in_place_tablespaces = on;
create tablespace inside_{r} location '';
create table within_{r} (a int primary key) tablespace inside_{r};
insert into within_{r} select generate_series(1, 50);
drop table if exists within_{p};
drop tablespace if exists inside_{p};
-- act unlogged
insert into fleeting select g from generate_series(1, 300) g on conflict do nothing;
create unlogged table un_{r} (a int primary key, b int[], c text);
create index on un_{r} using gin (b);
create index on un_{r} using gist (point(a, a));
create index on un_{r} using hash (c);
create index on un_{r} using spgist (c);
create index on un_{r} using brin (a);
insert into un_{r} select g, array[g], 'c' from generate_series(1, 100) g;
alter table un_{r} set logged;
insert into un_{r} select g, array[g], 'c' from generate_series(101, 150) g;
alter table un_{r} set unlogged;
drop table if exists un_{p};
-- act sequences
create sequence seq_{r};
select count(nextval('seq_{r}')) from generate_series(1, 40);
select count(nextval('numbers')) from generate_series(1, 100);
alter sequence seq_{r} restart with 1000;
begin; create sequence seq_gone; select nextval('seq_gone'); rollback;
drop sequence if exists seq_{p};
-- act sequences-unlogged 15
create unlogged sequence useq_{r};
select count(nextval('useq_{r}')) from generate_series(1, 40);
drop sequence if exists useq_{p};
-- act large-objects
select lo_from_bytea(0, decode(repeat('ab', 9000), 'hex'));
select lo_put(oid, 3000, 'changed') from pg_largeobject_metadata limit 2;
select lo_unlink(oid) from pg_largeobject_metadata where oid::bigint % 3 = {r} % 3;
vacuum pg_largeobject;
-- act copy
copy copied from program 'seq 1 20000';
begin; truncate copied; copy copied from program 'seq 1 3000' (freeze); commit;
-- act toast
insert into toasted select g, (select string_agg(md5((g * x + {r})::text), '') from generate_series(1, 200) x) from generate_series(1, 40) g;
update toasted set big = big || 'x' where id % 5 = {r} % 5;
delete from toasted where id % 7 = {r} % 7;
-- act toast-large
insert into toasted select -{r}, string_agg(md5((g * {r})::text), '') from generate_series(1, 45000) g;
delete from toasted where id = -{p};
vacuum toasted;
-- act hints
begin; update moved set a = a + 10000 where a % 3 = {r} % 3; rollback;
select count(*) from heap where w like '%a%';
select count(*) from many where a > 0;
select count(*) from moved;
select count(*) from toasted where length(big) > 1;
set enable_seqscan = off;
select count(*) from pairs where id > 0;
select count(*) from many where p <@ box '((0,0),(50,50))';
-- act compressed
-- Whether a server was built with a method only it can tell.
\set ON_ERROR_STOP 0
set wal_compression = pglz;
update heap set w = repeat('p', 200) where id % 11 = {r} % 11;
set wal_compression = lz4;
checkpoint;
update heap set w = repeat('l', 200) where id % 17 = {r} % 17;
set wal_compression = zstd;
checkpoint;
update pairs set n = n + 1;
set wal_compression = on;
update many set t = 'w' || t where a % 11 = {r} % 11;
set wal_compression = off;
checkpoint;
update pairs set n = n + 1;
\set ON_ERROR_STOP 1
-- act pages-not-whole
alter system set full_page_writes = off;
select pg_reload_conf();
select pg_sleep(0.05);
checkpoint;
update pairs set n = n + 1;
delete from many where a % 31 = {r} % 31;
vacuum pairs;
alter system reset full_page_writes;
select pg_reload_conf();
-- act partitions
create table if not exists parts (a int, b text) partition by range (a);
create table part_{r} (a int, b text);
insert into part_{r} select {r} * 100 + g, 'p' from generate_series(0, 99) g;
create index on part_{r} (a);
alter table parts attach partition part_{r} for values from ({r} * 100) to ({r} * 100 + 100);
create index if not exists parts_b on parts (b);
update parts set b = 'moved' where a % 7 = 1;
drop table if exists part_{p};
-- act temporary
create temp table passing (a int primary key, b text);
insert into passing select g, 'x' from generate_series(1, 500) g;
begin; create temp table shorter (a int) on commit drop; insert into shorter values (1); commit;
insert into pairs_log select a from passing limit 3;
-- act views
create materialized view seen_{r} as select a % 10 k, count(*) n from many group by 1;
create unique index on seen_{r} (k);
refresh materialized view seen_{r};
update many set a = a + 1 where a % 23 = {r} % 23;
refresh materialized view concurrently seen_{r};
drop materialized view if exists seen_{p};
-- act types
create type mood_{r} as enum ('fine');
create table felt_{r} (m mood_{r});
alter type mood_{r} add value 'better' before 'fine';
insert into felt_{r} values ('better'), ('fine');
drop table if exists felt_{p};
drop type if exists mood_{p};
-- act columns
create table cols_{r} (a int, b text);
insert into cols_{r} select g, 'b' from generate_series(1, 400) g;
alter table cols_{r} add column c int default 7, add column d text default random()::text;
alter table cols_{r} alter column b type varchar(10), drop column a;
alter table cols_{r} add primary key (d);
drop table if exists cols_{p};
-- act tablespace-dropped
-- It does not come back, unless the cluster is set back to before.
select unnest(array['create table spared_{r} (a int) tablespace spare', 'insert into spared_{r} select generate_series(1, 100)', 'checkpoint',
  'drop table spared_{r}', 'drop tablespace spare']) from pg_tablespace where spcname = 'spare' \gexec
-- act indexes
insert into many select g, array[g % 50, g % 7, {r}], point(g % 100, g / 100), int4range(g, g + 10), 'text ' || g || repeat('y', g % 40) from generate_series(1, 900) g;
update many set a = a + 1, p = point(a % 90, b[1]), t = 'z' || t where a % 6 = {r} % 6;
delete from many where a % 9 = {r} % 9;
select gin_clean_pending_list('many_gin');
-- act index-vacuum
delete from many where a < 3000 and a % 3 = {r} % 3;
vacuum many;
select brin_summarize_new_values('many_brin'), brin_desummarize_range('many_brin', 0);
-- act index-build
create index concurrently ic_{r} on many (t, a);
drop index concurrently if exists ic_{p};
-- act index-rebuild
reindex index concurrently pairs_pkey;
reindex table concurrently upsert;
-- act conflict
insert into upsert select g, {r} from generate_series(1, 300, 3) g on conflict (k) do update set n = upsert.n + 1;
delete from upsert where k % 5 = {r} % 5;
-- act checkpoint
checkpoint;
-- act switch
select pg_switch_wal();
begin; insert into pairs_log values ({r}); savepoint a; select pg_switch_wal(); insert into pairs_log values ({r}); release a; select pg_switch_wal(); commit;
-- act restore-point
select pg_create_restore_point('point {r}');
-- act messages
select pg_logical_emit_message(true, 'bygone', repeat('m', 30000));
select pg_logical_emit_message(false, 'bygone', 'short');
-- Longer than a whole segment, where those are small.
select pg_logical_emit_message(true, 'bygone', repeat('m', 1300000));
-- act origins
select pg_replication_origin_create('from {r}');
select pg_replication_origin_session_setup('from {r}');
begin; select pg_replication_origin_xact_setup('0/{r}00', '2020-01-01 00:00:00 UTC'); insert into pairs_log values ({r}); commit;
select pg_replication_origin_session_reset();
select pg_replication_origin_advance('standing', '1/{r}0');
select pg_replication_origin_drop(roname) from pg_replication_origin where roname = 'from {p}';
-- act many-relations
do $$ begin for i in 1..40 loop execute format('create table mass_%s (a int)', i); end loop; end $$;
do $$ begin for i in 1..40 loop execute format('drop table mass_%s', i); end loop; end $$;

-- GIN: CREATE_PTREE, INSERT (into both trees, leaves and inner pages), SPLIT, VACUUM_PAGE, DELETE_PAGE, UPDATE_META_PAGE, INSERT_LISTPAGE,
-- DELETE_LISTPAGE, VACUUM_DATA_LEAF_PAGE.
-- One key for every row: its posting tree grows to several leaves and an inner root.
create table gin_t (id int, a int[]);
create index gin_i on gin_t using gin (a) with (fastupdate = off);
insert into gin_t select i, '{0}' from generate_series(1, 22000) i;
-- Heap space that VACUUM gave back: items between others, merged into segments, which split.
delete from gin_t where id % 5 = 0;
vacuum gin_t;
insert into gin_t select i, '{0}' from generate_series(1, 4000) i;
-- A leaf of the posting tree empties out, then most of each.
delete from gin_t where ctid between '(25,1)' and '(90,1)';
vacuum gin_t;
delete from gin_t where id % 7 <> 0;
vacuum gin_t;
insert into gin_t select i, '{0}' from generate_series(1, 500) i;
-- Many keys: the tree of keys splits in its leaves and above.
create table gin_w (id int, v tsvector);
create index gin_w_i on gin_w using gin (v) with (fastupdate = off);
insert into gin_w select i, to_tsvector('simple', md5(i::text) || ' often' || i % 20) from generate_series(1, 1500) i;
-- Keys that no compression shortens fill inner pages too.
insert into gin_w select i, (select array_to_tsvector(array[string_agg(md5(i || '/' || j), '')]) from generate_series(1, 40) j)
    from generate_series(1, 200) i;
delete from gin_w where id % 3 = 0;
vacuum gin_w;
-- The pending list: one tuple at a time, rows with more entries than a page of it holds, and flushed.
create table gin_f (id int, a int[]);
create index gin_f_i on gin_f using gin (a) with (fastupdate = on, gin_pending_list_limit = 64);
insert into gin_f select i, array[i, i % 10, i % 20] from generate_series(1, 1000) i;
insert into gin_f select i, (select array_agg(g) from generate_series(i, i + 900) g) from generate_series(1, 30) i;
select gin_clean_pending_list('gin_f_i');
insert into gin_f values (1, '{1}'), (2, null), (3, '{}');
delete from gin_f where id % 2 = 0;
vacuum gin_f;

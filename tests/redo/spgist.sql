-- SP-GiST: ADD_LEAF, MOVE_LEAFS, ADD_NODE, SPLIT_TUPLE, PICKSPLIT, VACUUM_LEAF, VACUUM_ROOT, VACUUM_REDIRECT.
-- Roots that are still leaves.
create table spg_root (id int, p point);
create index spg_root_i on spg_root using spgist (p);
insert into spg_root select i, point(i, i) from generate_series(1, 50) i;
insert into spg_root select i, null from generate_series(1, 60) i;
delete from spg_root where id % 2 = 0;
vacuum spg_root;
-- Quad trees: leaves that move and are split, also those of nulls.
create table spg_p (id int, p point);
create index spg_p_i on spg_p using spgist (p);
insert into spg_p select i, point((i * 7919) % 1009, (i * 104729) % 997) from generate_series(1, 4000) i;
insert into spg_p select i, null from generate_series(1, 1200) i;
delete from spg_p where id % 3 = 0;
vacuum spg_p;
insert into spg_p select i, point((i * 31) % 1009, (i * 37) % 997) from generate_series(1, 2000) i;
delete from spg_p where id % 5 <> 0;
vacuum spg_p;
insert into spg_p select i, point(1, 1) from generate_series(1, 800) i;
-- Radix trees over text: nodes are added as new letters come, and a prefix is split when a value leaves it early.
create table spg_t (id int, t text);
create index spg_t_i on spg_t using spgist (t);
insert into spg_t select i, repeat('prefix', 8) || md5(i::text) from generate_series(1, 2500) i;
insert into spg_t select i, repeat('prefix', i % 8) || chr(65 + i % 50) || i from generate_series(1, 2500) i;
insert into spg_t select i, left(repeat('prefix', 8), i % 48) || chr(40 + i % 80) || md5((i % 700)::text) from generate_series(1, 6000) i;
insert into spg_t select i, chr(200 + i % 1500) || md5(i::text) from generate_series(1, 3000) i;
insert into spg_t select i, 'http://' || chr(97 + i % 26) || chr(97 + i / 26 % 26) || chr(300 + i % 400) || '/' || i from generate_series(1, 3000) i;
delete from spg_t where id % 4 <> 0;
vacuum spg_t;
select txid_current();
vacuum spg_t;
insert into spg_t select i, repeat('prefix', i % 9) || md5(i::text) from generate_series(1, 1500) i;
-- Chains that die out; then their pages fill with others, so that a tuple that revives one of them must live elsewhere.
create table spg_d (id int, t text);
create index spg_d_i on spg_d using spgist (t);
insert into spg_d select i, chr(97 + i % 26) || chr(97 + i / 26 % 26) || md5(i::text) from generate_series(1, 2000) i;
delete from spg_d where (id / 26) % 26 in (3, 9, 15, 21);
vacuum spg_d;
insert into spg_d select i, chr(97 + i % 26) || chr(97 + i / 26 % 26) || md5(i::text) from generate_series(2001, 5000) i
    where (i / 26) % 26 not in (3, 9, 15, 21);
insert into spg_d select i, chr(97 + i % 26) || chr(97 + i / 26 % 26) || repeat(md5(i::text), 20) from generate_series(5001, 6000) i
    where (i / 26) % 26 in (3, 9, 15, 21);

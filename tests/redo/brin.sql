-- BRIN: CREATE_INDEX, INSERT (with and without INIT_PAGE), UPDATE (likewise), SAMEPAGE_UPDATE, REVMAP_EXTEND, DESUMMARIZE.
-- One wide row a heap page and one heap page a range, so that few rows make many ranges.
create table brin_t (id int, t text, pad text);
alter table brin_t alter pad set storage plain, alter t set storage plain;
create index brin_i on brin_t using brin (id, t) with (pages_per_range = 1);
insert into brin_t select i, 'a' || i, repeat('x', 4500) from generate_series(1, 200) i;
select brin_summarize_new_values('brin_i');
-- Summaries of the same length are overwritten in their place.
update brin_t set id = id where id % 10 = 0;
insert into brin_t select i, 'b' || i, repeat('y', 500) from generate_series(1, 400) i;
-- Longer values: summaries outgrow their index page and move to another.
insert into brin_t select i, repeat(chr(97 + i % 26), 400 + i), 'z' from generate_series(1, 500) i;
select brin_summarize_new_values('brin_i');
select count(brin_desummarize_range('brin_i', r)) from generate_series(0, 150, 3) r;
select brin_summarize_new_values('brin_i');
-- More ranges than one page of the map holds (1360): the map takes the place of an index page, whose summaries are moved away.
insert into brin_t select i, 'c', repeat('x', 4500) from generate_series(1, 1300) i;
select brin_summarize_new_values('brin_i');

/*
 * An extension with a resource manager of its own: only this code can replay what it logs.
 *
 * opaque_note(text)              a record that names no block; it stands in the file "opaque_notes" of the data directory
 * opaque_stamp(regclass, int, int) sets the first column (an int) of the first row in a block of a table
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

#define OPAQUE_RMGR 142
#define OPAQUE_NOTE 0x00
#define OPAQUE_STAMP 0x10

PG_FUNCTION_INFO_V1(opaque_note);
PG_FUNCTION_INFO_V1(opaque_stamp);

static void
append(const char *text, int len)
{
	int			fd = OpenTransientFile("opaque_notes", O_WRONLY | O_CREAT | O_APPEND | PG_BINARY);

	if (fd < 0 || write(fd, text, len) != len || write(fd, "\n", 1) != 1)
		elog(ERROR, "opaque_notes cannot be written");
	CloseTransientFile(fd);
}

static void
stamp(Page page, int32 value)
{
	HeapTupleHeader row = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));

	memcpy((char *) row + row->t_hoff, &value, sizeof(value));
}

Datum
opaque_note(PG_FUNCTION_ARGS)
{
	char	   *note = text_to_cstring(PG_GETARG_TEXT_PP(0));

	XLogBeginInsert();
	XLogRegisterData(note, strlen(note));
	XLogFlush(XLogInsert(OPAQUE_RMGR, OPAQUE_NOTE));
	append(note, strlen(note));
	PG_RETURN_VOID();
}

Datum
opaque_stamp(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	Buffer		buffer = ReadBuffer(rel, PG_GETARG_INT32(1));
	int32		value = PG_GETARG_INT32(2);
	XLogRecPtr	end;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	START_CRIT_SECTION();
	stamp(BufferGetPage(buffer), value);
	MarkBufferDirty(buffer);
	XLogBeginInsert();
	XLogRegisterBuffer(0, buffer, REGBUF_STANDARD);
	XLogRegisterBufData(0, (char *) &value, sizeof(value));
	end = XLogInsert(OPAQUE_RMGR, OPAQUE_STAMP);
	PageSetLSN(BufferGetPage(buffer), end);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
	relation_close(rel, RowExclusiveLock);
	PG_RETURN_VOID();
}

static void
opaque_redo(XLogReaderState *record)
{
	Buffer		buffer;

	if ((XLogRecGetInfo(record) & XLR_RMGR_INFO_MASK) == OPAQUE_NOTE)
		append(XLogRecGetData(record), XLogRecGetDataLen(record));
	else
	{
		if (XLogReadBufferForRedo(record, 0, &buffer) == BLK_NEEDS_REDO)
		{
			int32		value;

			memcpy(&value, XLogRecGetBlockData(record, 0, NULL), sizeof(value));
			stamp(BufferGetPage(buffer), value);
			PageSetLSN(BufferGetPage(buffer), record->EndRecPtr);
			MarkBufferDirty(buffer);
		}
		if (BufferIsValid(buffer))
			UnlockReleaseBuffer(buffer);
	}
}

static void
opaque_desc(StringInfo buf, XLogReaderState *record)
{
}

static const char *
opaque_identify(uint8 info)
{
	return (info & XLR_RMGR_INFO_MASK) == OPAQUE_NOTE ? "NOTE" : "STAMP";
}

static RmgrData opaque_rmgr = {
	.rm_name = "opaque",
	.rm_redo = opaque_redo,
	.rm_desc = opaque_desc,
	.rm_identify = opaque_identify,
};

void
_PG_init(void)
{
	RegisterCustomRmgr(OPAQUE_RMGR, &opaque_rmgr);
}

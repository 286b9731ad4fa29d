-- A batch that writes no lane leaves its number in its rows, and the bytes of their bodies: what the lane's row would say
-- follows from those behind its tail. NULL in all others. Both columns were of the scratch store once, and empty here.
ALTER TABLE message RENAME COLUMN behind TO batch_no;
ALTER TABLE message RENAME COLUMN nth TO body_bytes;

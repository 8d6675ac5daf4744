SET FOREIGN_KEY_CHECKS = 0;

ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;

SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,IGNORE_BAD_TABLE_OPTIONS';

CREATE TABLE `goods` (
  `id` int(10) unsigned NOT NULL,
  `price` decimal(8,2) DEFAULT NULL,
  `sold` date DEFAULT NULL,
  `kind` enum('a','b') DEFAULT NULL,
  `code` binary(4) DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
